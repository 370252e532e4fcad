package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// roleWord is the first argument of a process that is a player.
const roleWord = "role"

// playRole is a player's main: it ends with its standard input.
func playRole(args []string) error {
	if len(args) == 0 {
		return errors.New("a role is needed")
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	switch role, args := args[0], args[1:]; role {
	case "naive":
		return playNaive(ctx)
	case "packets":
		return playPackets(ctx, args[0])
	case "origin":
		return playOrigin(ctx, args)
	case "client":
		return playClient(ctx, args)
	default:
		return fmt.Errorf("there is no role %q", role)
	}
}

func say(a answer) error { return json.NewEncoder(os.Stdout).Encode(a) }

// untilTold returns when standard input has ended: the coordinator has gone.
func untilTold() {
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// orders answers every order until there are no more.
func orders(do func(order) (answer, error)) error {
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return nil // the coordinator has gone
		}
		var o order
		if err := json.Unmarshal(line, &o); err != nil {
			return err
		}
		a, err := do(o)
		if err != nil {
			a.Error = err.Error()
		}
		if err := say(a); err != nil {
			return err
		}
	}
}
