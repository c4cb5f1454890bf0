package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"chaperone/cmd/chaperone/problem"
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
