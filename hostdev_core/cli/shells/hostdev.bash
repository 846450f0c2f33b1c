# Completion of hostdev for bash, as `hostdev completion bash` has written it.
# The rules and URIs of plugins are those of that day: write it anew when plugins change.

_hostdev() {
  local line word
  COMPREPLY=()
  while IFS= read -r line; do
    word=${line%%$'\t'*}
    case $line in
      $'\tfiles') compopt -o default ;;
      $'\tdirectories') compopt -o dirnames ;;
      *) COMPREPLY+=("$word") ;;
    esac
  done < <("${1/#\~/$HOME}" completion --line bash "${COMP_LINE:0:COMP_POINT}" "$2" @RULES@ @URIS@ 2>/dev/null)
}
complete -F _hostdev hostdev
