package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chaperone/cmd/chaperone/problem"
	"chaperone/policy"
	"chaperone/policy/action"
)

// shown is how `service show` was asked.
type shown struct {
	match  string
	access []string
}

// serviceFile is what a service says of itself, beside its actions.
type serviceFile struct {
	Service   string                `json:"service"`
	Source    string                `json:"source,omitzero"`
	License   string                `json:"license,omitzero"`
	Hosts     []string              `json:"hosts"`
	GitHosts  []string              `json:"git_hosts,omitzero"`
	Env       []string              `json:"env,omitzero"`
	Places    []string              `json:"places,omitzero"`
	Handle    string                `json:"handle,omitzero"`
	Refusal   string                `json:"refusal,omitzero"`
	Resources []action.ResourceRule `json:"resources,omitzero"`
	Actions   []actionRow           `json:"actions"`
}

// actionRow is one operation with what it leaves behind.
type actionRow struct {
	Action    string        `json:"action"`
	Access    policy.Access `json:"access"`
	Method    string        `json:"method,omitzero"`
	Path      string        `json:"path,omitzero"`
	Key       string        `json:"key,omitzero"`
	Host      string        `json:"host,omitzero"`
	Creates   bool          `json:"creates,omitzero"`
	ID        string        `json:"id,omitzero"`
	Undo      string        `json:"undo,omitzero"`
	Deletes   bool          `json:"deletes,omitzero"`
	Lasting   bool          `json:"lasting,omitzero"`
	Expensive bool          `json:"expensive,omitzero"`
	Sensitive bool          `json:"sensitive,omitzero"`
	Marks     []string      `json:"marks,omitzero"`
}

func (a *app) serviceShow() *cobra.Command {
	var in shown
	c := &cobra.Command{
		Use: "show [SERVICE]", Short: "Tell about one service, and list its actions or those that a pattern covers",
		Long: `Tell where a service answers and takes credentials, and list its actions: access level,
request, what is created and which action removes it again, what lasts, costs or is sensitive.

--match and --access try a grant: they list what it would cover. Without SERVICE, all
services are searched.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.showService(args, &in) },
	}
	c.Flags().StringVar(&in.match, "match", "", "only actions that the `PATTERN` of a grant covers, such as github:issues/* or *:*")
	c.Flags().StringSliceVar(&in.access, "access", nil, "only actions of this `LEVEL`, again for more: read, list, write, delete, admin")
	return c
}

func (a *app) showService(args []string, in *shown) error {
	for _, level := range in.access {
		if !slices.Contains([]policy.Access{policy.AccessRead, policy.AccessList, policy.AccessWrite, policy.AccessDelete, policy.AccessAdmin}, policy.Access(level)) {
			return problem.Misuse("access is not known: "+level, "levels are read, list, write, delete, admin")
		}
	}
	catalogue, err := a.catalogue()
	if err != nil {
		return err
	}
	if len(args) == 0 {
		if in.match == "" && len(in.access) == 0 {
			return problem.Misuse("SERVICE is missing", "name one of `chaperone service list`, or search all with --match or --access")
		}
		var rows []actionRow
		for _, s := range catalogue.Services() {
			rows = append(rows, in.rows(s)...)
		}
		return a.print(rows, func(w io.Writer) { in.table(w, rows) })
	}
	s := catalogue.Service(args[0])
	if s == nil {
		return problem.Failure(fmt.Errorf("service is not known: %s", args[0]), "see `chaperone service list`; services: in config.yaml adds others")
	}
	file := serviceFile{s.Name, s.Source, s.License, s.Hosts, s.GitHosts, s.Env, s.Places, s.Handle, s.Refusal, s.Resources, in.rows(s)}
	return a.print(file, func(w io.Writer) {
		if in.match == "" && len(in.access) == 0 {
			describeService(w, &file, s)
		}
		in.table(w, file.Actions)
	})
}

// rows are the service's actions that were asked for.
func (in *shown) rows(s *action.Service) []actionRow {
	out := []actionRow{}
	for _, r := range s.Rows() {
		if in.match != "" && !r.Covered(in.match) || len(in.access) > 0 && !slices.Contains(in.access, string(r.Access)) {
			continue
		}
		e := r.Effects
		out = append(out, actionRow{r.Action, r.Access, r.Method, r.Path, r.Key, r.Host, e.Creates, e.ID, e.Undo, e.Deletes, e.Lasting, e.Expensive,
			slices.Contains(r.Marks, action.MarkSensitive), r.Marks})
	}
	return out
}

func (in *shown) table(w io.Writer, rows []actionRow) {
	if len(rows) == 0 {
		row(w, "nothing", "no action is covered by that; names are those of `chaperone service show SERVICE`")
		return
	}
	row(w, "ACTION", "ACCESS", "REQUEST", "LEAVES")
	for i := range rows {
		r := &rows[i]
		request := strings.TrimSpace(r.Method + " " + r.Path)
		if r.Key != "" {
			request = r.Key
		}
		row(w, r.Action, r.Access, request, r.leaves())
	}
}

// leaves tells in a line what an action leaves behind.
func (r *actionRow) leaves() string {
	var out []string
	if r.Creates {
		text := "creates"
		if r.ID != "" {
			text += " " + r.ID
		}
		switch {
		case r.Undo != "":
			text += ", undone by " + r.Undo
		case slices.Contains(r.Marks, "undeletable"):
			text += ", which nothing here removes"
		}
		out = append(out, text)
	}
	for _, mark := range []struct {
		set  bool
		text string
	}{{r.Deletes, "deletes"}, {r.Lasting, "lasting"}, {r.Expensive, "expensive"}, {r.Sensitive, "sensitive"}} {
		if mark.set {
			out = append(out, mark.text)
		}
	}
	if slices.ContainsFunc(r.Marks, func(m string) bool { return strings.HasPrefix(m, action.MarkMints+"=") }) {
		out = append(out, "hands out a credential")
	}
	return strings.Join(out, "; ")
}

// tokensOf are the services whose tokens a service hands out, and what the trade of a
// handle is called there.
func tokensOf(s *action.Service) string {
	if len(s.TokensOf) == 0 {
		return ""
	}
	return strings.Join(s.TokensOf, " ") + ", a handle for one by " + s.Trade().ID
}

// signature is what a service has covered by HTTP Message Signatures, and how.
func signature(settings map[string]string) string {
	if len(settings) == 0 {
		return ""
	}
	return settings["components"] + " by " + settings["algorithm"]
}

// describeService tells where a service answers and what it takes, and how many
// actions it has of each level.
func describeService(w io.Writer, f *serviceFile, s *action.Service) {
	levels := map[policy.Access]int{}
	for i := range f.Actions {
		levels[f.Actions[i].Access]++
	}
	var kinds []string
	for _, r := range f.Resources {
		kinds = append(kinds, r.Type+" "+r.ID)
	}
	hosts := append(slices.Clone(f.Hosts), f.GitHosts...)
	for _, name := range slices.Sorted(maps.Keys(s.APIs)) {
		hosts = append(hosts, s.APIs[name].Hosts...)
	}
	if len(hosts) == 0 {
		hosts = []string{"none: give them with services: in config.yaml"}
	}
	for _, line := range [][2]string{
		{"service", f.Service}, {"hosts", strings.Join(hosts, " ")}, {"variables", strings.Join(f.Env, " ")},
		{"credentials", strings.Join(f.Places, " ")}, {"tokens of", tokensOf(s)}, {"signs", s.HMAC["string"]}, {"signature", signature(s.HTTPSignature)}, {"handles begin", f.Handle}, {"refusals for", f.Refusal},
		{"resources", strings.Join(kinds, ", ")}, {"source", strings.ReplaceAll(f.Source, " sha256:", "@sha256:")}, {"licence", f.License},
		{"actions", fmt.Sprintf("%d: %d read, %d list, %d write, %d delete, %d admin", len(f.Actions), levels["read"], levels["list"], levels["write"], levels["delete"], levels["admin"])},
	} {
		if line[1] != "" {
			row(w, line[0], line[1])
		}
	}
	fmt.Fprintln(w)
}
