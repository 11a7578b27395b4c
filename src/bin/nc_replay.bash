# Completion of nc_replay's command line in bash. Options are those that its --help names.
_nc_replay()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} program=${COMP_WORDS[0]}
	local words=

	case $prev in
		--lsn) words='latest recorded' ;;
		--class) words='foreground ahead prewarm async' ;;
		--speed) words='1 max' ;;
		*)
			if [[ $cur == -* ]]; then
				words=$("$program" --help 2>/dev/null | grep -oE '^  --[a-z-]+')$'\n--help'
			else
				compopt -o filenames 2>/dev/null
				mapfile -t COMPREPLY < <(compgen -f -- "$cur")
				return
			fi
			;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _nc_replay nc_replay
