package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chaperone/cmd/chaperone/admin"
	"chaperone/cmd/chaperone/problem"
	"chaperone/proxy/identity"
)

func (a *app) agentVerbs() *cobra.Command {
	return group("agent", "Register agents, suspend and retire them",
		a.agentAdd(), a.agentList(), a.agentShow(), a.agentSuspend(), a.agentResume(), a.agentRetire())
}

func (a *app) agentAdd() *cobra.Command {
	var owner string
	var labels map[string]string
	c := &cobra.Command{
		Use: "add NAME --owner HUMAN", Short: "Register an agent and who answers for it", Args: arguments("NAME"),
		RunE: a.withAdmin(func(ctx context.Context, client *admin.Client, args []string) error {
			if owner == "" {
				return problem.Misuse("an agent needs an owner", "name who answers for it: --owner alice@example.com")
			}
			agent, err := client.AddAgent(ctx, admin.AgentSpec{Name: args[0], Owner: owner, Labels: labels})
			if err != nil {
				return err
			}
			return a.print(agent, func(w io.Writer) {
				fmt.Fprintf(w, "agent %s is registered; %s answers for it\n", agent.Name, agent.Owner)
				fmt.Fprintln(w, "it may do nothing yet: grant it actions in the policy's grants.yaml")
			})
		}),
	}
	c.Flags().StringVar(&owner, "owner", "", "`HUMAN` or team that answers for the agent")
	c.Flags().StringToStringVar(&labels, "label", nil, "`KEY=VALUE` that policy sees; may be repeated")
	return c
}

// withAdmin makes a verb of a function that speaks with the running proxy.
func (a *app) withAdmin(f func(context.Context, *admin.Client, []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		client, err := a.admin()
		if err != nil {
			return err
		}
		return f(c.Context(), client, args)
	}
}

func (a *app) agentList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List all agents", Args: noArguments,
		RunE: a.withAdmin(func(ctx context.Context, client *admin.Client, _ []string) error {
			agents, err := client.Agents(ctx)
			if err != nil {
				return err
			}
			return a.print(agents, func(w io.Writer) {
				row(w, "AGENT", "STATE", "OWNER", "CREATED")
				for _, x := range agents {
					row(w, x.Name, x.State, x.Owner, day(x.Created))
				}
			})
		}),
	}
}

func (a *app) agentShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show one agent and its open sessions", Args: arguments("NAME"),
		RunE: a.withAdmin(func(ctx context.Context, client *admin.Client, args []string) error {
			agent, err := client.Agent(ctx, args[0])
			if err != nil {
				return err
			}
			sessions, err := client.Sessions(ctx)
			if err != nil {
				return err
			}
			sessions = slices.DeleteFunc(sessions, func(s identity.Session) bool { return s.Agent != agent.Name || state(&s) != "open" })
			return a.print(struct {
				identity.Agent
				Sessions []identity.Session `json:"sessions"`
			}{agent, sessions}, func(w io.Writer) {
				row(w, "agent", agent.Name)
				row(w, "state", agent.State)
				row(w, "owner", agent.Owner)
				for _, k := range slices.Sorted(maps.Keys(agent.Labels)) {
					row(w, "label", k+"="+agent.Labels[k])
				}
				row(w, "created", moment(agent.Created))
				if agent.Reason != "" {
					row(w, "reason", agent.Reason)
				}
				for _, s := range sessions {
					row(w, "session", s.ID+" for "+orNobody(s.Human)+" until "+moment(s.Expires))
				}
			})
		}),
	}
}

func (a *app) agentSuspend() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "suspend NAME", Short: "Bar all that an agent does, at once, until it is resumed", Args: arguments("NAME"),
		RunE: a.withAdmin(func(ctx context.Context, client *admin.Client, args []string) error {
			agent, err := client.Suspend(ctx, args[0], admin.Change{Reason: reason, By: a.user()})
			if err != nil {
				return err
			}
			return a.print(agent, func(w io.Writer) {
				fmt.Fprintf(w, "agent %s is suspended; its streams were cut, its sessions wait for `chaperone agent resume %s`\n", agent.Name, agent.Name)
				acknowledged(w, agent.Replicas, agent.Unconfirmed)
			})
		}),
	}
	c.Flags().StringVar(&reason, "reason", "", "`TEXT` that says why")
	return c
}

func (a *app) agentResume() *cobra.Command {
	return &cobra.Command{
		Use: "resume NAME", Short: "Lift a suspension", Args: arguments("NAME"),
		RunE: a.withAdmin(func(ctx context.Context, client *admin.Client, args []string) error {
			agent, err := client.Resume(ctx, args[0], admin.Change{By: a.user()})
			if err != nil {
				return err
			}
			return a.print(agent, func(w io.Writer) { fmt.Fprintf(w, "agent %s is active\n", agent.Name) })
		}),
	}
}

func (a *app) agentRetire() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "retire NAME", Short: "End an agent for good and list what is left of it", Args: arguments("NAME"),
		RunE: a.withAdmin(func(ctx context.Context, client *admin.Client, args []string) error {
			r, err := client.Retire(ctx, args[0], admin.Change{Reason: reason, By: a.user()})
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) {
				fmt.Fprintf(w, "agent %s is retired; its sessions and handles are revoked\n", r.Agent)
				acknowledged(w, r.Replicas, r.Unconfirmed)
				if len(r.Residue) == 0 {
					fmt.Fprintln(w, "no residue is known: no credential was given to it")
					return
				}
				fmt.Fprintln(w, "residue, for its owner to close:")
				for _, x := range r.Residue {
					fmt.Fprintln(w, "  [ ] "+x)
				}
			})
		}),
	}
	c.Flags().StringVar(&reason, "reason", "", "`TEXT` that says why")
	return c
}

// state is how a session stands now, by what is known of it here.
func state(s *identity.Session) string {
	switch {
	case !s.Ended.IsZero():
		return "revoked"
	case time.Now().After(s.Expires):
		return "expired"
	}
	return "open"
}

func day(t time.Time) string    { return t.Local().Format(time.DateOnly) }
func moment(t time.Time) string { return t.Local().Format(time.DateTime) }

func orNobody(human string) string {
	if human == "" {
		return "nobody"
	}
	return strings.TrimSpace(human)
}
