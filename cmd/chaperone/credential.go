package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chaperone/cmd/chaperone/admin"
	"chaperone/cmd/chaperone/problem"
	"chaperone/credential"
)

func (a *app) credentialVerbs() *cobra.Command {
	return group("credential", "Keep credentials, sealed", a.credentialAdd(), a.credentialReplace(), a.credentialLogin(), a.credentialTest(), a.credentialKinds(), a.credentialList(), a.credentialShow(), a.credentialRemove())
}

// maxSecret bounds a secret, in bytes.
const maxSecret = 64 << 10

// secretSource is where a secret comes from: exactly one of its fields is set.
type secretSource struct {
	env, file, command string
	stdin              bool
	argument           string // a secret that somebody put on the command line
	reference          string // where the proxy fetches it when it is used
}

func (s *secretSource) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.env, "from-env", "", "read the secret now from variable `NAME`")
	f.StringVar(&s.file, "from-file", "", "read the secret now from `FILE`")
	f.StringVar(&s.command, "from-command", "", "read the secret now from what `COMMAND` prints")
	f.BoolVar(&s.stdin, "from-stdin", false, "read the secret now from standard input")
	f.StringVar(&s.reference, "source", "", "have the proxy fetch it when it is used: `env:NAME|file:/PATH|command:COMMAND|vault:PATH#FIELD|…`")
	for _, name := range []string{"secret", "value", "token", "password"} { // to say clearly why not
		f.StringVar(&s.argument, name, "", "")
		f.MarkHidden(name)
	}
}

// read returns the secret.
func (s *secretSource) read(ctx context.Context, a *app) ([]byte, error) {
	const hint = "use --from-env NAME, --from-file FILE, --from-command COMMAND, --from-stdin or --source REFERENCE"
	if s.argument != "" {
		return nil, problem.Misuse("a secret is never an argument: other users and the shell's history see it", hint+"; then replace that secret, it has been seen")
	}
	n := 0
	for _, set := range []bool{s.env != "", s.file != "", s.command != "", s.stdin, s.reference != ""} {
		if set {
			n++
		}
	}
	if n != 1 {
		return nil, problem.Misuse("say where the secret comes from, once", hint)
	}
	b, err := s.fetch(ctx, a, hint)
	if err == nil && len(b) > maxSecret {
		err = problem.Failure(fmt.Errorf("reading secret: it is longer than %d bytes", maxSecret), "see that the source is the secret and nothing else")
	}
	if err == nil && len(b) == 0 && s.reference == "" {
		err = problem.Failure(errors.New("reading secret: it is empty"), "see that the source holds it")
	}
	return b, err
}

func (s *secretSource) fetch(ctx context.Context, a *app, hint string) ([]byte, error) {
	switch {
	case s.reference != "":
		return nil, nil // the proxy's to fetch
	case s.env != "":
		v, ok := a.variable(s.env)
		if !ok {
			return nil, problem.Failure(fmt.Errorf("reading secret: variable %s is not set", s.env), "export it, or "+hint)
		}
		return []byte(v), nil
	case s.file != "":
		b, err := os.ReadFile(s.file)
		if err != nil {
			return nil, fmt.Errorf("reading secret: %w", err)
		}
		return b, nil
	case s.command != "":
		b, err := exec.CommandContext(ctx, "sh", "-c", s.command).Output()
		if err != nil {
			return nil, fmt.Errorf("reading secret from command: %w", err)
		}
		return b, nil
	}
	b, err := io.ReadAll(io.LimitReader(a.stdin, maxSecret+1))
	if err != nil {
		return nil, fmt.Errorf("reading secret: %w", err)
	}
	return b, nil
}

func (a *app) credentialAdd() *cobra.Command {
	var in admin.CredentialSpec
	var from secretSource
	var username string
	var settings []string
	c := &cobra.Command{
		Use:   "add ID --service S --owner OWNER --kind KIND (--from-env V | --from-file F | --from-command C | --from-stdin | --source REFERENCE)",
		Short: "Keep a secret under an id, sealed, or where to fetch it",
		Long: `Keep a secret under an id. Agents get handles for it and never see it; it is never
printed again. --from-… seals it in the store; with --source it stays where it is, and the
proxy fetches it when it is used. chaperone credential kinds lists the kinds and what each
wants with --set.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				from.argument = args[1]
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			secret, err := from.read(c.Context(), a)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return problem.Misuse("chaperone credential add wants ID", "usage: "+c.UseLine())
			}
			if in.Settings, err = assignments(settings); err != nil {
				return err
			}
			if err := checkPlace(&in.Credential, username); err != nil {
				return err
			}
			in.ID, in.Secret, in.Source = args[0], secret, from.reference
			return a.addCredential(c.Context(), in)
		},
	}
	f := c.Flags()
	f.StringVar(&in.Service, "service", "", "`SERVICE` that it is for, see `chaperone service list`")
	f.StringVar(&in.Owner, "owner", "", "whose it is: `human:H|agent:A|org`")
	f.StringVar(&in.Kind, "kind", credential.KindBearer, "how it is applied: a `KIND` of `chaperone credential kinds`")
	f.StringVar(&in.Place, "place", "", "`NAME` of the header field, query parameter or cookie, for those kinds")
	f.StringArrayVar(&settings, "set", nil, "`NAME=VALUE` that the kind wants; may be repeated")
	f.DurationVar(&in.Cache, "cache", 0, "how long what --source gave is used (5m)")
	f.StringVar(&username, "username", "", "not needed: the client sends the user name, for kind basic, beside the handle")
	from.flags(c)
	f.MarkHidden("username")
	return c
}

// assignments reads NAME=VALUE.
func assignments(list []string) (map[string]string, error) {
	var out map[string]string
	for _, text := range list {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, problem.Misuse(fmt.Sprintf("--set %q is not NAME=VALUE", text), "write it like --set client_id=abc")
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = value
	}
	return out, nil
}

func (a *app) credentialReplace() *cobra.Command {
	var from secretSource
	c := &cobra.Command{
		Use:   "replace ID (--from-env V | --from-file F | --from-command C | --from-stdin | --source REFERENCE)",
		Short: "Put another secret behind a credential; its handles stay",
		Long: `Put another secret behind a credential. Its handles stay what they are: agents notice
nothing, and the next request uses the new secret.`,
		Args: arguments("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			secret, err := from.read(c.Context(), a)
			if err != nil {
				return err
			}
			client, err := a.admin()
			if err != nil {
				return err
			}
			x, err := client.ReplaceCredential(c.Context(), args[0], admin.Material{Source: from.reference, Secret: secret})
			if err != nil {
				return err
			}
			return a.print(x, func(w io.Writer) {
				fmt.Fprintf(w, "credential %s has another secret; its handles are as they were; the service still accepts the old one until you revoke it there\n", x.ID)
			})
		},
	}
	from.flags(c)
	return c
}

// kindRow is a kind as it is listed.
type kindRow struct {
	Kind     string            `json:"kind"`
	Doc      string            `json:"doc"`
	Secret   string            `json:"secret"`
	Settings map[string]string `json:"settings,omitzero"`
}

func (a *app) credentialKinds() *cobra.Command {
	return &cobra.Command{
		Use: "kinds", Short: "List the kinds of credentials and what each wants", Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			all := credential.Kinds()
			rows := make([]kindRow, len(all))
			for i, k := range all {
				rows[i] = kindRow{Kind: k.Name, Doc: k.Doc, Secret: k.Material}
				for _, s := range k.Settings {
					if rows[i].Settings == nil {
						rows[i].Settings = map[string]string{}
					}
					rows[i].Settings[s.Name] = s.Doc
				}
			}
			return a.print(rows, func(w io.Writer) { describeKinds(w, all) })
		},
	}
}

func describeKinds(w io.Writer, all []credential.Kind) {
	for _, k := range all {
		fmt.Fprintf(w, "%s\n    %s\n    secret: %s\n", k.Name, k.Doc, k.Material)
		for _, s := range k.Settings {
			needed := ""
			if s.Required {
				needed = " (needed)"
			}
			fmt.Fprintf(w, "    --set %s=…  %s%s\n", s.Name, s.Doc, needed)
		}
	}
}

func checkPlace(c *credential.Credential, username string) error {
	named := c.Kind == credential.KindHeader || c.Kind == credential.KindQuery || c.Kind == credential.KindCookie
	switch {
	case named && c.Place == "":
		return problem.Misuse("kind "+c.Kind+" wants --place NAME", "such as --place X-Api-Key, or --place api_key for a query parameter")
	case c.Place != "" && (c.Kind == credential.KindBearer || c.Kind == credential.KindBasic):
		return problem.Misuse("--place is for kinds header, query and cookie", "leave it out for kind "+c.Kind)
	case username != "" && c.Kind != credential.KindBasic:
		return problem.Misuse("--username is for kind basic", "leave it out for kind "+c.Kind)
	}
	return nil
}

func (a *app) addCredential(ctx context.Context, in admin.CredentialSpec) error {
	client, err := a.admin()
	if err != nil {
		return err
	}
	made, err := client.AddCredential(ctx, in)
	if err != nil {
		return err
	}
	return a.print(made, func(w io.Writer) {
		kept := "is sealed"
		if made.Source != "" {
			kept = "stays at its source"
		}
		fmt.Fprintf(w, "credential %s for %s "+kept+"; give a handle to an agent with --credential %s\n", made.ID, made.Service, made.ID)
	})
}

func (a *app) credentialList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List all credentials, never their secrets", Args: noArguments,
		RunE: a.withAdmin(func(ctx context.Context, client *admin.Client, _ []string) error {
			list, err := client.Credentials(ctx)
			if err != nil {
				return err
			}
			status, err := client.Status(ctx)
			if err != nil {
				return err
			}
			err = a.print(list, func(w io.Writer) {
				row(w, "CREDENTIAL", "SERVICE", "OWNER", "KIND", "CREATED")
				for _, x := range list {
					row(w, x.ID, x.Service, x.Owner, kind(&x), day(x.Created))
				}
			})
			if failing := slices.Sorted(maps.Keys(status.Troubles)); err == nil && len(failing) > 0 {
				fmt.Fprintf(a.stderr, "chaperone: these could not be used when that was last tried: %s; `chaperone doctor` says why\n", strings.Join(failing, ", "))
			}
			return err
		}),
	}
}

func kind(c *credential.Credential) string {
	return strings.TrimSuffix(c.Kind+":"+c.Place, ":")
}

func (a *app) credentialShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show one credential, never its secret", Args: arguments("ID"),
		RunE: a.withAdmin(func(ctx context.Context, client *admin.Client, args []string) error {
			x, err := client.Credential(ctx, args[0])
			if err != nil {
				return err
			}
			return a.print(x, func(w io.Writer) {
				row(w, "credential", x.ID)
				row(w, "service", x.Service)
				row(w, "owner", x.Owner)
				row(w, "kind", kind(&x.Credential))
				for _, name := range slices.Sorted(maps.Keys(x.Settings)) {
					row(w, "set", name+"="+x.Settings[name])
				}
				row(w, "source", x.Source)
				row(w, "created", moment(x.Created))
				if !x.Rotated.IsZero() {
					row(w, "replaced", moment(x.Rotated))
				}
				if x.Trouble != nil {
					row(w, "trouble", moment(x.Trouble.Time)+": "+x.Trouble.What)
					row(w, "hint", x.Trouble.Hint)
				}
			})
		}),
	}
}

func (a *app) credentialRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove ID", Short: "Forget a credential and revoke its handles", Args: arguments("ID"),
		RunE: a.withAdmin(func(ctx context.Context, client *admin.Client, args []string) error {
			if err := client.RemoveCredential(ctx, args[0]); err != nil {
				return err
			}
			return a.print(map[string]string{"removed": args[0]}, func(w io.Writer) {
				fmt.Fprintf(w, "credential %s is forgotten and its handles are revoked; the service still accepts the secret until you revoke it there\n", args[0])
			})
		}),
	}
}
