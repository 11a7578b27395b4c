# Completion of neon_dev's command line in bash. Commands and options are those that its --help names.
_neon_dev()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} program=${COMP_WORDS[0]} command=${COMP_WORDS[1]:-}
	local words=

	case $prev in
		-D | -o | --from | --to | --archive | --pg-config | --record | --bench)
			compopt -o filenames 2>/dev/null
			mapfile -t COMPREPLY < <(compgen -f -- "$cur")
			return
			;;
	esac
	if [ "$COMP_CWORD" = 1 ]; then
		words=$("$program" --help 2>/dev/null | sed -n 's/^  neon_dev \([a-z-]*\).*/\1/p')
	else
		words=$("$program" "$command" --help 2>/dev/null | sed 's/([^)]*)//g' | grep -oE '(^|[^A-Za-z0-9-])--?[A-Za-z][a-z-]*' | sed 's/^[^-]*//')
		words+=$'\n--help\n--quiet\n-D'
		"$program" "$command" --help 2>/dev/null | grep -q 'page-server N\]' && words+=$'\ncompute\npage-server'
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _neon_dev neon_dev
