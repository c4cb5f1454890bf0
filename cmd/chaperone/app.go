package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"chaperone/cmd/chaperone/admin"
	"chaperone/cmd/chaperone/problem"
	"chaperone/cmd/chaperone/settings"
)

// app is one call of the program: where it reads and writes, and what holds for
// every verb.
type app struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	env    []string

	config string
	json   bool
}

// defaultConfig is read where --config is not given, if it exists.
const defaultConfig = "config.yaml"

// terminal is the app that a person at a terminal calls.
func terminal() *app {
	return &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, env: os.Environ()}
}

// run carries out one command line and returns the exit code.
func run(args []string, a *app) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return problem.Done
	}
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	p := problem.Of(err)
	if isUnknownVerb(err) {
		p = problem.Misuse(err.Error(), "see `chaperone --help`")
	}
	fmt.Fprintf(a.stderr, "chaperone: error: %s\n", p.Message)
	if p.Hint != "" {
		fmt.Fprintf(a.stderr, "chaperone: hint: %s\n", p.Hint)
	}
	return p.Code
}

// exitCode ends the program without a message: one was printed, or another
// program's code is passed on.
type exitCode int

// Error tells the code.
func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

func isUnknownVerb(err error) bool { return strings.HasPrefix(err.Error(), "unknown command ") }

// root returns the tree of verbs.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "chaperone",
		Short: "A forward proxy for AI agents: who is calling, for whom, to do what, and may they",
		Long: `chaperone is a forward proxy for AI agents. An agent holds handles in place of
credentials. For every request chaperone knows which agent is calling and for which
human, names the action, asks policy, writes the decision down, and only then puts
the real credential in and forwards.

Exit codes: 0 done, 1 failed, 2 misused, 3 policy said no.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArguments,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetIn(a.stdin)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return problem.Misuse(err.Error(), "see `"+c.CommandPath()+" --help`")
	})
	root.PersistentFlags().StringVar(&a.config, "config", defaultConfig, "configuration `FILE`; without one the defaults hold")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	root.AddCommand(a.serveVerb(), a.demoVerb(), a.runVerb(), a.agentVerbs(), a.credentialVerbs(), a.sessionVerbs(), a.revokeVerb(), a.humanVerbs(), a.replicasVerb(), a.storeVerbs(),
		a.logVerbs(), a.policyVerbs(), a.serviceVerbs(), a.caVerbs(), a.doctorVerb(), a.inside())
	return root
}

// group is a verb that only has verbs below it.
func group(use, short string, below ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: noArguments, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(below...)
	return c
}

func noArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	what := "takes no argument"
	if c.HasSubCommands() {
		what = "has no such verb"
	}
	return problem.Misuse(fmt.Sprintf("%s %s: %s", c.CommandPath(), what, args[0]), "see `"+c.CommandPath()+" --help`")
}

// arguments demands exactly one argument for each name.
func arguments(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		return problem.Misuse(fmt.Sprintf("%s wants %s", c.CommandPath(), strings.Join(names, " ")), "usage: "+c.UseLine())
	}
}

// settings reads the configuration. A file that was named must exist.
func (a *app) settings() (*settings.Settings, error) {
	load := settings.Load
	if a.config == defaultConfig {
		load = settings.LoadDefault
	}
	s, err := load(a.config)
	if _, ok := errors.AsType[*settings.Faults](err); ok {
		return nil, problem.Failure(err, "the comments of the shipped config.yaml name every key; nothing was started")
	}
	if err != nil {
		return nil, problem.Failure(err, "name the configuration with --config FILE")
	}
	return s, nil
}

// admin returns a client of the running proxy.
func (a *app) admin() (*admin.Client, error) {
	s, err := a.settings()
	if err != nil {
		return nil, err
	}
	return admin.NewClient(s.Admin), nil
}

// variable returns a variable of the caller's environment and whether it is set.
func (a *app) variable(name string) (string, bool) {
	for i := len(a.env) - 1; i >= 0; i-- {
		if k, v, _ := strings.Cut(a.env[i], "="); k == name {
			return v, true
		}
	}
	return "", false
}

// user is who asks for a change, for the record.
func (a *app) user() string {
	for _, name := range []string{"SUDO_USER", "USER", "LOGNAME"} {
		if v, ok := a.variable(name); ok && v != "" {
			return v
		}
	}
	return fmt.Sprintf("uid:%d", os.Getuid())
}

// print writes v as JSON where that was asked for, else what text writes.
func (a *app) print(v any, text func(w io.Writer)) error {
	if a.json {
		e := json.NewEncoder(a.stdout)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	text(w)
	return w.Flush()
}

// row writes the cells of one line of a table.
func row(w io.Writer, cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		fmt.Fprint(w, c)
	}
	fmt.Fprintln(w)
}
