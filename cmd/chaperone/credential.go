package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"chaperone/cmd/chaperone/admin"
	"chaperone/cmd/chaperone/problem"
	"chaperone/credential"
)

func (a *app) credentialVerbs() *cobra.Command {
	return group("credential", "Keep credentials, sealed", a.credentialAdd(), a.credentialList(), a.credentialShow(), a.credentialRemove())
}

// maxSecret bounds a secret, in bytes.
const maxSecret = 64 << 10

// secretSource is where a secret comes from: exactly one of its fields is set.
type secretSource struct {
	env, file, command string
	stdin              bool
	argument           string // a secret that somebody put on the command line
}

// read returns the secret.
func (s *secretSource) read(ctx context.Context, a *app) ([]byte, error) {
	const hint = "use --from-env NAME, --from-file FILE, --from-command COMMAND or --from-stdin"
	if s.argument != "" {
		return nil, problem.Misuse("a secret is never an argument: other users and the shell's history see it", hint+"; then replace that secret, it has been seen")
	}
	n := 0
	for _, set := range []bool{s.env != "", s.file != "", s.command != "", s.stdin} {
		if set {
			n++
		}
	}
	if n != 1 {
		return nil, problem.Misuse("say where the secret comes from, once", hint)
	}
	switch {
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
	c := &cobra.Command{
		Use:   "add ID --service S --owner OWNER --kind KIND (--from-env V | --from-file F | --from-command C | --from-stdin)",
		Short: "Seal a secret under an id",
		Long: `Seal a secret under an id. Agents get handles for it and never see it; it is never
printed again. Kinds: bearer (Authorization: Bearer), basic (the password half, or the
other half where the client puts the handle there), header and query (with --place).`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				from.argument = args[1]
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			secret, err := from.read(c.Context(), a)
			if err == nil && len(secret) > maxSecret {
				err = problem.Failure(fmt.Errorf("reading secret: it is longer than %d bytes", maxSecret), "see that the source is the secret and nothing else")
			}
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return problem.Misuse("chaperone credential add wants ID", "usage: "+c.UseLine())
			}
			if err := checkPlace(&in.Credential, username); err != nil {
				return err
			}
			in.ID, in.Secret = args[0], secret
			return a.addCredential(c.Context(), in)
		},
	}
	f := c.Flags()
	f.StringVar(&in.Service, "service", "", "`SERVICE` that it is for, see `chaperone service list`")
	f.StringVar(&in.Owner, "owner", "", "whose it is: `human:H|agent:A|org`")
	f.StringVar(&in.Kind, "kind", credential.KindBearer, "how it is applied: `bearer|basic|header|query`")
	f.StringVar(&in.Place, "place", "", "`NAME` of the header field or query parameter, for those kinds")
	f.StringVar(&username, "username", "", "not needed: the client sends the user name, for kind basic, beside the handle")
	f.StringVar(&from.env, "from-env", "", "read the secret from variable `NAME`")
	f.StringVar(&from.file, "from-file", "", "read the secret from `FILE`")
	f.StringVar(&from.command, "from-command", "", "read the secret from what `COMMAND` prints")
	f.BoolVar(&from.stdin, "from-stdin", false, "read the secret from standard input")
	for _, name := range []string{"secret", "value", "token", "password"} { // to say clearly why not
		f.StringVar(&from.argument, name, "", "")
		f.MarkHidden(name)
	}
	f.MarkHidden("username")
	return c
}

func checkPlace(c *credential.Credential, username string) error {
	named := c.Kind == credential.KindHeader || c.Kind == credential.KindQuery
	switch {
	case named && c.Place == "":
		return problem.Misuse("kind "+c.Kind+" wants --place NAME", "such as --place X-Api-Key, or --place api_key for a query parameter")
	case !named && c.Place != "":
		return problem.Misuse("--place is for kinds header and query", "leave it out for kind "+c.Kind)
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
		fmt.Fprintf(w, "credential %s for %s is sealed; give a handle to an agent with --credential %s\n", made.ID, made.Service, made.ID)
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
			return a.print(list, func(w io.Writer) {
				row(w, "CREDENTIAL", "SERVICE", "OWNER", "KIND", "CREATED")
				for _, x := range list {
					row(w, x.ID, x.Service, x.Owner, kind(&x), day(x.Created))
				}
			})
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
				row(w, "kind", kind(&x))
				row(w, "created", moment(x.Created))
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
