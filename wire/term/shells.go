package term

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// completionCommand prints what makes a shell ask this program.
func completionCommand() *Command {
	return &Command{
		Name: "completion", Args: "bash|zsh|fish", MinArgs: 1, MaxArgs: 1,
		Short: "print a script that completes this program's command lines in your shell",
		Long: `In bash:  source <(PROGRAM completion bash)
In zsh:   source <(PROGRAM completion zsh)      after compinit
In fish:  PROGRAM completion fish | source`,
		Complete: func(_ context.Context, c Completing) []Candidate {
			if c.Flag != "" || len(c.Words) > 0 {
				return nil
			}
			var all []Candidate
			for _, shell := range slices.Sorted(maps.Keys(completionScripts)) {
				all = append(all, Candidate{Text: shell})
			}
			return all
		},
		Run: func(_ context.Context, env *Env, args []string) error {
			script, ok := completionScripts[args[0]]
			if !ok {
				return Errorf(Usage, "there is no completion for %q, only for bash, zsh and fish", args[0])
			}
			name := "_" + strings.ReplaceAll(env.Program, "-", "_") + "_complete"
			text := strings.NewReplacer("PROGRAM", env.Program, "FUNCTION", name).Replace(script)
			return env.Print(struct {
				Script string `json:"script"`
			}{text}, func(w io.Writer) { fmt.Fprint(w, text) })
		},
	}
}

// completionScripts ask the program with __complete, at every key: what can be
// completed depends on the moment.
var completionScripts = map[string]string{
	// bash takes = and : for the ends of words, and replaces what is behind the
	// last of them only.
	"bash": `# bash completion for PROGRAM
FUNCTION() {
	local line=${COMP_LINE:0:COMP_POINT} word text about IFS=$'\n'
	word=${line##*[[:space:]]}
	COMPREPLY=()
	while IFS=$'\t' read -r text about; do
		if [[ $text == :files ]]; then
			compopt -o filenames 2>/dev/null
			COMPREPLY=($(compgen -f -- "${word#*=}"))
			return
		fi
		if [[ $word == *[=:]* && $COMP_WORDBREAKS == *[=:]* ]]; then
			text=${text#"${word%"${word##*[=:]}"}"}
		fi
		[[ $text == *[=:,] ]] && compopt -o nospace 2>/dev/null
		COMPREPLY+=("$text")
	done < <("$1" __complete --line "$line" 2>/dev/null)
}
complete -F FUNCTION PROGRAM
`,
	"zsh": `#compdef PROGRAM
FUNCTION() {
	local line text about
	local -a ends shown open opened
	for line in ${(f)"$(${(Q)words[1]} __complete -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)"}; do
		text=${line%%$'\t'*} about=${line#*$'\t'}
		if [[ $text == :files ]]; then
			_files
			return
		fi
		line=$text
		[[ -n $about ]] && line="$text  -- $about"
		if [[ $text == *[=:,] ]]; then
			open+=("$text") opened+=("$line")
		else
			ends+=("$text") shown+=("$line")
		fi
	done
	(( $#ends )) && compadd -l -d shown -a ends
	(( $#open )) && compadd -l -S '' -d opened -a open
}
if [[ $funcstack[1] == _PROGRAM ]]; then # loaded from a folder of $fpath
	FUNCTION
else
	compdef FUNCTION PROGRAM
fi
`,
	"fish": `# fish completion for PROGRAM
function FUNCTION
	set -l before (commandline -opc)
	set -l word (commandline -ct)
	set -l found ($before[1] __complete -- $before[2..] $word 2>/dev/null)
	if string match -q ':files*' -- $found[1]
		__fish_complete_path (string replace -r '^--?[a-z-]+=' '' -- $word)
	else
		printf '%s\n' $found
	end
end
complete -c PROGRAM -f -a '(FUNCTION)'
`,
}
