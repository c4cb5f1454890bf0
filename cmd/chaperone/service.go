package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"chaperone/cmd/chaperone/problem"
	"chaperone/policy"
	"chaperone/policy/action"
)

func (a *app) serviceVerbs() *cobra.Command {
	return group("service", "Look into the catalogue of services and their actions", a.serviceList(), a.serviceShow(), a.serviceClassify(), a.serviceImport())
}

// catalogue loads what is shipped and what the configuration adds.
func (a *app) catalogue() (*action.Catalogue, error) {
	s, err := a.settings()
	if err != nil {
		return nil, err
	}
	return loadCatalogue(s)
}

// serviceRow is a service in a list.
type serviceRow struct {
	Service string   `json:"service"`
	Hosts   []string `json:"hosts"`
	Actions int      `json:"actions"`
	Env     []string `json:"env,omitzero"`
	Source  string   `json:"source,omitzero"`
}

func (a *app) serviceList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List all services", Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			catalogue, err := a.catalogue()
			if err != nil {
				return err
			}
			var rows []serviceRow
			for _, s := range catalogue.Services() {
				rows = append(rows, serviceRow{s.Name, append(append([]string{}, s.Hosts...), s.GitHosts...), len(s.Rows()), s.Env, s.Source})
			}
			return a.print(rows, func(w io.Writer) {
				row(w, "SERVICE", "ACTIONS", "HOSTS", "VARIABLES")
				for _, r := range rows {
					row(w, r.Service, r.Actions, strings.Join(r.Hosts, " "), strings.Join(r.Env, " "))
				}
			})
		},
	}
}

func (a *app) serviceShow() *cobra.Command {
	return &cobra.Command{
		Use: "show SERVICE", Short: "List the actions of one service", Args: arguments("SERVICE"),
		RunE: func(_ *cobra.Command, args []string) error {
			catalogue, err := a.catalogue()
			if err != nil {
				return err
			}
			s := catalogue.Service(args[0])
			if s == nil {
				return problem.Failure(fmt.Errorf("service is not known: %s", args[0]), "see `chaperone service list`; services: in config.yaml adds others")
			}
			rows := s.Rows()
			return a.print(rows, func(w io.Writer) {
				row(w, "ACTION", "ACCESS", "REQUEST")
				for _, r := range rows {
					row(w, s.Name+":"+strings.TrimPrefix(r.Action, s.Name+":"), r.Access, r.Method+" "+r.Path)
				}
			})
		},
	}
}

// named is what a request was classified as.
type named struct {
	Action   string        `json:"action"`
	Access   policy.Access `json:"access"`
	Known    bool          `json:"known"`
	Why      string        `json:"why,omitzero"`
	Type     string        `json:"resource_type,omitzero"`
	Resource string        `json:"resource,omitzero"`
	Keys     []string      `json:"keys"`
}

func (a *app) serviceClassify() *cobra.Command {
	var data string
	c := &cobra.Command{
		Use: "classify METHOD URL", Short: "Name the action that a request would perform",
		Args: func(*cobra.Command, []string) error { return nil },
		RunE: func(_ *cobra.Command, args []string) error {
			catalogue, err := a.catalogue()
			if err != nil {
				return err
			}
			q, err := classify(catalogue, args, data)
			if err != nil {
				return err
			}
			acts := q.Actions
			if len(acts) == 0 {
				acts = []policy.Act{{Action: q.Action, Resource: q.Resource}}
			}
			var list []named
			for _, x := range acts {
				list = append(list, named{x.Action.ID, x.Action.Access, x.Action.Known, x.Action.Why, x.Resource.Type, x.Resource.ID, x.Action.Keys})
			}
			return a.print(list, func(w io.Writer) {
				for _, n := range list {
					describeNamed(w, &n)
				}
			})
		},
	}
	c.Flags().StringVar(&data, "data", "", "the request's `BODY`")
	return c
}

func describeNamed(w io.Writer, n *named) {
	if !n.Known {
		row(w, "action", "not known ("+n.Why+")")
		row(w, "grant", "only a raw grant (hosts, methods, path_prefix) reaches it")
		return
	}
	row(w, "action", n.Action)
	row(w, "access", n.Access)
	if n.Resource != "" {
		row(w, "resource", n.Type+" "+n.Resource)
	}
	row(w, "granted by", strings.Join(n.Keys, "  "))
}
