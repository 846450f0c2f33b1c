#compdef hostdev
# Completion of hostdev for zsh, as `hostdev completion zsh` has written it.
# The rules and URIs of plugins are those of that day: write it anew when plugins change.

_hostdev() {
  local line program=${${(Q)words[1]}/#\~/$HOME} before="${(j: :)words[1,CURRENT-1]} ${compstate[quote]}$PREFIX"
  local -a found shown
  for line in "${(@f)$($program completion --line zsh "$before" '' @RULES@ @URIS@ 2>/dev/null)}"; do
    case $line in
      '') ;;
      $'\tfiles') _files ;;
      $'\tdirectories') _files -/ ;;
      *) found+=("${line%%$'\t'*}") shown+=("${line/$'\t'/  -- }") ;;
    esac
  done
  compadd -l -d shown -a found
}
if [[ $funcstack[1] == _hostdev ]]; then _hostdev "$@"; else compdef _hostdev hostdev; fi
