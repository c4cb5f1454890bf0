package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chaperone/cmd/chaperone/admin"
	"chaperone/cmd/chaperone/problem"
	"chaperone/policy"
	"chaperone/proxy/identity"
)

func (a *app) sessionVerbs() *cobra.Command {
	return group("session", "Delegate to one instance of an agent", a.sessionCreate(), a.sessionList(), a.sessionShow(), a.sessionRevoke())
}

// delegation is what the flags of run and session create say.
type delegation struct {
	identity.Spec
	scopes []string
}

func (d *delegation) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&d.Agent, "agent", "", "`NAME` of the agent")
	f.StringVar(&d.Human, "human", "", "`HUMAN` for whom it acts; without one its owner answers")
	f.StringVar(&d.Purpose, "purpose", "", "`TEXT` that says what for")
	f.DurationVar(&d.TTL, "ttl", identity.DefaultTTL, "how long it lasts")
	f.StringArrayVar(&d.Credentials, "credential", nil, "`ID` of a credential for which it gets a handle, or a service: then the human's own for it, else the agent's, else org's; may be repeated")
	f.StringArrayVar(&d.scopes, "scope", nil, "narrow it to `ACTIONS[@RESOURCES]`, patterns with commas between; may be repeated")
	f.DurationVar(&d.Idle, "idle", 0, "ends when nothing is asked for so long; 0: never")
	f.Int64Var(&d.Uses, "uses", 0, "how often each of its handles may be used; 0: any number")
	f.StringVar(&d.Parent, "parent", "", "`ID` of the session of which this one gets a part")
}

// spec checks the flags.
func (d *delegation) spec() (identity.Spec, error) {
	if d.Agent == "" {
		return identity.Spec{}, problem.Misuse("--agent is missing", "see `chaperone agent list`")
	}
	for _, text := range d.scopes {
		actions, resources, narrowed := strings.Cut(text, "@")
		s := policy.Scope{Actions: patterns(actions)}
		if narrowed {
			s.Resources = patterns(resources)
		}
		if len(s.Actions) == 0 || narrowed && len(s.Resources) == 0 {
			return identity.Spec{}, problem.Misuse(fmt.Sprintf("scope %q has an empty part", text), "write ACTIONS[@RESOURCES], such as 'github:issues/*@acme/web'")
		}
		d.Scope = append(d.Scope, s)
	}
	return d.Spec, nil
}

func patterns(list string) []string {
	var out []string
	for p := range strings.SplitSeq(list, ",") {
		if p = strings.TrimSpace(p); p != "" {
			out = append(out, p)
		}
	}
	return out
}

func (a *app) sessionCreate() *cobra.Command {
	var d delegation
	var format, address, folder string
	c := &cobra.Command{
		Use: "create --agent A", Short: "Make a session and print what its instance needs", Args: noArguments,
		Long: `Make a session and print what its instance needs. Token and handles are told this once.

env             export lines that a shell can eval
json            one object, with the variables in env
docker          a file for docker run --env-file; its first lines name the mount that it needs
github-actions  adds the variables to the file $GITHUB_ENV and prints masks for the secrets
kubernetes      a Secret for envFrom and a ConfigMap to mount at /run/chaperone, for kubectl apply

A container does not reach the proxy at this machine's 127.0.0.1: listen on an address that
it reaches and name it with --proxy.`,
		RunE: a.withAdmin(func(ctx context.Context, client *admin.Client, _ []string) error {
			if a.json {
				format = "json"
			}
			print, ok := a.formats()[format]
			if !ok {
				return problem.Misuse(fmt.Sprintf("there is no format %q", format), "use "+formatNames)
			}
			if folder != "" && format == "kubernetes" {
				return problem.Misuse("--files writes into a folder of this machine, which a pod does not see", "leave it out, and make the file a Secret of your own")
			}
			if err := checkAddress(address); err != nil {
				return err
			}
			spec, err := d.spec()
			if err != nil {
				return err
			}
			s, err := client.CreateSession(ctx, spec)
			if err != nil {
				return err
			}
			around, err := here(&s).from(address, format)
			if err == nil && folder != "" {
				err = around.writeFiles(folder)
			}
			if err == nil {
				err = print(around)
			}
			if err != nil {
				return a.takeBack(ctx, client, &around, err)
			}
			return nil
		}),
	}
	d.flags(c)
	c.Flags().DurationVar(&d.Lease, "lease", 0, "ends unless renewed so often over the admin socket; 0: no heartbeat")
	c.Flags().StringVar(&format, "format", "env", "`"+formatNames+"`")
	c.Flags().StringVar(&folder, "files", "", "write the files in which SDKs look for credentials (GOOGLE_APPLICATION_CREDENTIALS) into `FOLDER`; run does it by itself")
	c.Flags().StringVar(&address, "proxy", "", "`HOST:PORT` at which the instance reaches the proxy, where that is another than here")
	return c
}

// takeBack ends a session that did not reach whoever it was made for, because of err.
func (a *app) takeBack(ctx context.Context, client *admin.Client, s *surroundings, err error) error {
	for _, f := range s.files {
		os.Remove(f.value) // what is in it is worth nothing any more
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeBackTime)
	defer cancel()
	id := s.session.ID
	_, rerr := client.Revoke(ctx, admin.Revocation{Target: identity.Target{Session: id}, Change: admin.Change{Reason: "it could not be handed over", By: a.user()}})
	if rerr != nil {
		return problem.Failure(fmt.Errorf("%w; session %s is left open, as revoking it failed: %w", err, id, rerr), "`chaperone session revoke "+id+"`")
	}
	return problem.Failure(err, "the session was revoked again; mend that, and create another")
}

// takeBackTime bounds how long taking a session back may take.
const takeBackTime = 10 * time.Second

func (a *app) sessionList() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: "list", Short: "List open sessions, newest first", Args: noArguments,
		RunE: a.withAdmin(func(ctx context.Context, client *admin.Client, _ []string) error {
			list, err := client.Sessions(ctx)
			if err != nil {
				return err
			}
			shown := make([]identity.Session, 0, len(list))
			for _, s := range list {
				if all || state(&s) == "open" {
					shown = append(shown, s)
				}
			}
			return a.print(shown, func(w io.Writer) {
				row(w, "SESSION", "STATE", "AGENT", "INSTANCE", "HUMAN", "EXPIRES", "PURPOSE")
				for _, s := range shown {
					row(w, s.ID, state(&s), s.Agent, s.Instance, orNobody(s.Human), moment(s.Expires), s.Purpose)
				}
			})
		}),
	}
	c.Flags().BoolVar(&all, "all", false, "also those that ended")
	return c
}

func (a *app) sessionShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show one session, never its token", Args: arguments("ID"),
		RunE: a.withAdmin(func(ctx context.Context, client *admin.Client, args []string) error {
			s, err := client.Session(ctx, args[0])
			if err != nil {
				return err
			}
			return a.print(s, func(w io.Writer) { describeSession(w, &s.Session); describeHandles(w, s.Handles) })
		}),
	}
}

func describeSession(w io.Writer, s *identity.Session) {
	row(w, "session", s.ID)
	row(w, "state", state(s))
	row(w, "agent", s.Agent)
	row(w, "instance", s.Instance)
	row(w, "human", orNobody(s.Human))
	row(w, "purpose", s.Purpose)
	for _, x := range s.Scope {
		row(w, "scope", strings.Join(x.Actions, ",")+" on "+strings.Join(append([]string(nil), x.Resources...), ","))
	}
	row(w, "credentials", strings.Join(s.Credentials, ", "))
	if s.Parent != "" {
		row(w, "parent", s.Parent)
	}
	row(w, "created", moment(s.Created))
	row(w, "expires", moment(s.Expires))
	if !s.Ended.IsZero() {
		row(w, "ended", moment(s.Ended)+" by "+s.EndedBy+": "+s.EndReason)
	}
}

// describeHandles lists what the session has in the place of credentials, and how
// often each was used.
func describeHandles(w io.Writer, list []admin.Handle) {
	for _, h := range list {
		state := "until " + moment(h.Expires)
		if h.Limit > 0 {
			state = fmt.Sprintf("at most %d in all, ", h.Limit) + state
		}
		if h.Revoked {
			state = "revoked"
		}
		row(w, "handle", fmt.Sprintf("%s for %s at %s, used %d times since the proxy started, %s", h.ID, h.Credential, h.Service, h.Uses, state))
	}
}

func (a *app) sessionRevoke() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "revoke ID", Short: "End a session and those below it, at once", Args: arguments("ID"),
		RunE: a.withAdmin(func(ctx context.Context, client *admin.Client, args []string) error {
			return a.revoke(ctx, client, admin.Revocation{Target: identity.Target{Session: args[0]}, Change: admin.Change{Reason: reason, By: a.user()}})
		}),
	}
	c.Flags().StringVar(&reason, "reason", "", "`TEXT` that says why")
	return c
}

func (a *app) revokeVerb() *cobra.Command {
	var in admin.Revocation
	c := &cobra.Command{
		Use:   "revoke (--agent A | --instance I | --human H | --session S | --handle X | --credential C | --all)",
		Short: "Revoke sessions or handles, at once",
		Long: `Revoke all sessions that match every flag given, and those below them, or the handles
of a credential. When it returns, no request of theirs passes here, their streams are cut,
and each replica that shares the store and is alive has said the same of itself. It is for
good; ` + "`chaperone agent suspend` and `chaperone human suspend`" + ` can be lifted again.`,
		Args: noArguments,
		RunE: a.withAdmin(func(ctx context.Context, client *admin.Client, _ []string) error {
			if in.Target == (identity.Target{}) {
				return problem.Misuse("nothing to revoke is named", "name it with --agent, --instance, --human, --session, --handle, --credential or --all")
			}
			in.By = a.user()
			return a.revoke(ctx, client, in)
		}),
	}
	f := c.Flags()
	f.StringVar(&in.Agent, "agent", "", "all sessions of agent `NAME`")
	f.StringVar(&in.Instance, "instance", "", "the session of instance `ID`")
	f.StringVar(&in.Human, "human", "", "all sessions for `HUMAN`")
	f.StringVar(&in.Session, "session", "", "session `ID`")
	f.StringVar(&in.Handle, "handle", "", "a handle, by its text or `ID`")
	f.StringVar(&in.Credential, "credential", "", "all handles of credential `ID`")
	f.BoolVar(&in.All, "all", false, "every session that is open")
	f.StringVar(&in.Reason, "reason", "", "`TEXT` that says why")
	return c
}

// several is a number of things, by the word for one of them.
func several(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// shownSessions is how many of the sessions that a revocation ended are named.
const shownSessions = 20

func (a *app) revoke(ctx context.Context, client *admin.Client, in admin.Revocation) error {
	out, err := client.Revoke(ctx, in)
	if err != nil {
		return err
	}
	return a.print(out, func(w io.Writer) {
		fmt.Fprintf(w, "revoked %s and %s\n", several(len(out.Sessions), "session"), several(out.Handles, "handle"))
		for _, id := range out.Sessions[:min(len(out.Sessions), shownSessions)] {
			fmt.Fprintln(w, "  "+id)
		}
		if more := len(out.Sessions) - shownSessions; more > 0 {
			fmt.Fprintf(w, "  and %d more\n", more)
		}
		acknowledged(w, out.Replicas, out.Unconfirmed)
	})
}
