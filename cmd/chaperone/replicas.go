package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chaperone/cmd/chaperone/admin"
	"chaperone/store"
	"chaperone/store/replica"
)

func (a *app) replicasVerb() *cobra.Command {
	return &cobra.Command{
		Use: "replicas", Short: "List the replicas that share the store, and where they differ", Args: noArguments,
		Long: `List the replicas that share the store. VIEW is how old a replica's view of the store is,
and LAG how many changes it had not taken over when it last told. A policy, configuration
or CA that differs from this replica's is marked with !.`,
		RunE: a.withAdmin(func(ctx context.Context, client *admin.Client, _ []string) error {
			all, err := client.Replicas(ctx)
			if err != nil {
				return err
			}
			return a.print(all, func(w io.Writer) { describeReplicas(w, all) })
		}),
	}
}

func describeReplicas(w io.Writer, all []replica.Status) {
	var self replica.Status
	for _, s := range all {
		if s.Self {
			self = s
		}
	}
	row(w, "REPLICA", "STATE", "HOST", "LISTEN", "VERSION", "POLICY", "CONFIG", "CA", "SESSIONS", "VIEW", "LAG", "SKEW")
	for _, s := range all {
		row(w, s.ID, replicaState(&s), s.Host, s.Listen, differing(s.Version, self.Version), differing(short(s.Policy), short(self.Policy)),
			differing(s.Config, self.Config), differing(s.CA, self.CA), s.Sessions, s.Age.Round(time.Millisecond), s.Lag, s.Skew.Round(time.Millisecond))
	}
	for _, s := range all {
		if keys := otherwise(&s, &self); keys != "" {
			row(w, s.ID+" has another "+keys+" in its configuration")
		}
	}
	if self.Trouble != "" {
		row(w, troubled(&self))
	}
}

// otherwise names the settings that a replica has otherwise, or nothing where none is known.
func otherwise(there, here *replica.Status) string {
	if there.Config == here.Config || there.Parts == nil || here.Parts == nil {
		return ""
	}
	var keys []string
	for _, parts := range []map[string]string{there.Parts, here.Parts} {
		for k := range parts {
			if there.Parts[k] != here.Parts[k] && !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
		}
	}
	slices.Sort(keys)
	return strings.Join(keys, ", ")
}

// troubled says what follows from a store that this replica cannot read.
func troubled(s *replica.Status) string {
	switch {
	case s.Stale:
		return "this one refuses everything, since it knows too little of what was revoked: " + s.Trouble
	case s.Full:
		return "this one goes on, and nothing new can be made: " + s.Trouble
	}
	return "this one goes on with what it knows, until its view is older than store_stale: " + s.Trouble
}

func replicaState(s *replica.Status) string {
	switch {
	case s.Self && s.Draining:
		return "this one, draining"
	case s.Self && s.Stale:
		return "this one, refusing"
	case s.Self:
		return "this one"
	case !s.Alive:
		return "silent for " + s.Quiet.Round(time.Second).String()
	case s.Draining:
		return "draining"
	}
	return "alive"
}

// differing marks what is not as it is here.
func differing(there, here string) string {
	if there != here {
		return there + " !"
	}
	return there
}

// short is as much of a digest as tells it from another.
func short(digest string) string { return digest[:min(len(digest), 12)] }

// acknowledged says which replicas know of a change.
func acknowledged(w io.Writer, acks []replica.Ack, unconfirmed string) {
	if unconfirmed != "" {
		fmt.Fprintf(w, "in force here; whether other replicas know is not known: %s\n", unconfirmed)
		return
	}
	for _, a := range acks {
		if a.Done {
			fmt.Fprintf(w, "in force on %s (%s) after %v\n", a.ID, a.Host, a.Took.Round(10*time.Microsecond))
		} else {
			fmt.Fprintf(w, "NOT confirmed by %s (%s): %s; it refuses everything once its view is older than store_stale\n", a.ID, a.Host, a.Why)
		}
	}
}

func (a *app) humanVerbs() *cobra.Command {
	return group("human", "Suspend all that acts for a human", a.humanList(), a.humanSuspend(), a.humanResume())
}

func (a *app) humanList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the humans for whom agents act or acted", Args: noArguments,
		RunE: a.withAdmin(func(ctx context.Context, client *admin.Client, _ []string) error {
			all, err := client.Humans(ctx)
			if err != nil {
				return err
			}
			return a.print(all, func(w io.Writer) {
				row(w, "HUMAN", "STATE", "SINCE", "BY", "REASON")
				for _, h := range all {
					state, since := "active", ""
					if h.Suspended {
						state = "suspended"
					}
					if !h.Changed.IsZero() {
						since = moment(h.Changed)
					}
					row(w, h.ID, state, since, h.By, h.Reason)
				}
			})
		}),
	}
}

func (a *app) humanSuspend() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "suspend HUMAN", Short: "Bar all that acts for a human, at once and everywhere, until it is resumed", Args: arguments("HUMAN"),
		RunE: a.withAdmin(func(ctx context.Context, client *admin.Client, args []string) error {
			h, err := client.SuspendHuman(ctx, admin.HumanChange{ID: args[0], Change: admin.Change{Reason: reason, By: a.user()}})
			if err != nil {
				return err
			}
			namesakes := namesakes(ctx, client, h.ID)
			return a.print(h, func(w io.Writer) {
				fmt.Fprintf(w, "what acts for %s is barred; its streams were cut, its sessions wait for `chaperone human resume %s`\n", h.ID, h.ID)
				acknowledged(w, h.Replicas, h.Unconfirmed)
				for _, id := range namesakes {
					fmt.Fprintf(w, "NOT barred is what acts for %s, which is another name: suspend it too, if it is the same person\n", id)
				}
			})
		}),
	}
	c.Flags().StringVar(&reason, "reason", "", "`TEXT` that says why")
	return c
}

// namesakes are the humans who act under the same name and are not suspended: with another
// issuer, or with one where there was none.
func namesakes(ctx context.Context, client *admin.Client, human string) (ids []string) {
	all, err := client.Humans(ctx)
	if err != nil {
		return nil // what was asked for is done
	}
	for _, h := range all {
		if h.ID != human && !h.Suspended && subject(h.ID) == subject(human) {
			ids = append(ids, h.ID)
		}
	}
	return ids
}

// subject is a human's name without the issuer.
func subject(human string) string {
	if _, sub, ok := strings.Cut(human, "#"); ok {
		return sub
	}
	return human
}

func (a *app) humanResume() *cobra.Command {
	return &cobra.Command{
		Use: "resume HUMAN", Short: "Lift a suspension", Args: arguments("HUMAN"),
		RunE: a.withAdmin(func(ctx context.Context, client *admin.Client, args []string) error {
			h, err := client.ResumeHuman(ctx, admin.HumanChange{ID: args[0], Change: admin.Change{By: a.user()}})
			if err != nil {
				return err
			}
			return a.print(h, func(w io.Writer) { fmt.Fprintf(w, "agents may act for %s again\n", h.ID) })
		}),
	}
}

// mostSkew is by how much a replica's clock may differ from the store's without a word.
const mostSkew = 5 * time.Second

// behind says which way a clock differs from one that is so far ahead of it.
func behind(skew time.Duration) string {
	if skew > 0 {
		return "behind"
	}
	return "ahead of"
}

// replicas looks at how those that share the store differ, and how well they follow it.
func (f *findings) replicas(ctx context.Context, client *admin.Client) {
	all, err := client.Replicas(ctx)
	if err != nil {
		return // of an older version
	}
	var self replica.Status
	for _, s := range all {
		if s.Self {
			self = s
		}
	}
	if self.Trouble != "" {
		mend := "see that Redis runs and can be reached from here"
		if strings.HasPrefix(self.Trouble, store.ErrRefused.Error()) {
			mend = "mend Redis as it says; docs/replicas.md has what it needs"
		}
		f.broken(mend, "%s", troubled(&self))
		if !self.Full {
			return // what is known of the others is old
		}
	}
	if skew := self.Skew.Round(time.Millisecond); skew.Abs() > mostSkew {
		f.broken("have NTP keep it", "the clock here is %v %s that of the store, by which sessions end and records are dated", skew.Abs(), behind(skew))
	}
	if len(all) < 2 {
		return
	}
	odd := 0
	for _, s := range all {
		switch {
		case !s.Alive:
			f.broken("see that it runs and reaches the store", "replica %s on %s is silent for %v", s.ID, s.Host, s.Quiet.Round(time.Second))
		case s.CA != self.CA:
			f.broken("on the one whose CA fewer agents trust, move ca.pem and ca.key out of its state directory and start it again, and it takes the others'; or give all the same ca: in config.yaml", "replica %s on %s shows certificates of another CA: agents that trust this one do not trust it", s.ID, s.Host)
		case s.Policy != self.Policy:
			f.broken("`chaperone policy promote` puts one in force on all; without it give both the same files at policy.path", "replica %s on %s decides by policy %s, this one by %s", s.ID, s.Host, short(s.Policy), short(self.Policy))
		case s.Config != self.Config:
			f.broken("bring both to the same configuration", "replica %s on %s has another %s", s.ID, s.Host, cmp.Or(otherwise(&s, &self), "configuration"))
		default:
			continue
		}
		odd++
	}
	if odd == 0 {
		f.ok("%d replicas share the store and do not differ", len(all))
	}
}
