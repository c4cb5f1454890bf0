package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

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

// fewHosts are the first of many hosts; service show and --json tell all.
func fewHosts(hosts []string) string {
	const few = 3
	if len(hosts) <= few+1 {
		return strings.Join(hosts, " ")
	}
	return fmt.Sprintf("%s … %d more", strings.Join(hosts[:few], " "), len(hosts)-few)
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
					row(w, r.Service, r.Actions, fewHosts(r.Hosts), strings.Join(r.Env, " "))
				}
			})
		},
	}
}
