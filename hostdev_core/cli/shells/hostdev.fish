# Completion of hostdev for fish, as `hostdev completion fish` has written it.
# The rules and URIs of plugins are those of that day: write it anew when plugins change.

function __hostdev_complete
    set -l program (commandline --current-process --tokenize --cut-at-cursor | string replace --regex '^~(?=/)' $HOME)[1]
    for line in ($program completion --line fish (commandline --current-process --cut-at-cursor | string collect) '' @RULES@ @URIS@ 2>/dev/null)
        switch $line
            case \tfiles
                __fish_complete_path (commandline --current-token --cut-at-cursor | string unescape)
            case \tdirectories
                __fish_complete_directories (commandline --current-token --cut-at-cursor | string unescape)
            case '*'
                echo $line
        end
    end
end
complete --command hostdev --no-files --arguments '(__hostdev_complete)'
