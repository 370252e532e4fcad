package term

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"golang.org/x/term"
)

// Process runs this process's command line, with its memory kept to itself, and
// returns its exit code. SIGTERM
// ends the context of every command, an interrupt that of those that do not
// handle it themselves; a second one ends the process.
func Process(program string, root *Command) int {
	keepMemory()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)()
	env := &Env{Program: program, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv}
	return Main(ctx, env, root, os.Args[1:])
}

// interruptible ends the context at the first interrupt; the second one is the
// process's.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	unhook := context.AfterFunc(ctx, stop)
	return ctx, func() { unhook(); stop() }
}

// IsTerminal reports whether a stream of the environment is one.
func IsTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// build is what version prints.
type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// VersionCommand prints the build; stamped is what the linker put into main.
func VersionCommand(stamped string) *Command {
	return &Command{
		Name: "version", Short: "print the build",
		Run: func(_ context.Context, env *Env, _ []string) error {
			b := build{Version: stamped, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						b.Commit = s.Value
					}
				}
			}
			if b.Version == "" {
				b.Version = "development"
			}
			return env.Print(b, func(w io.Writer) {
				fmt.Fprintf(w, "%s %s %s %s/%s\n", env.Program, b.Version, b.Go, b.OS, b.Arch)
			})
		},
	}
}
