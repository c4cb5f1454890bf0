package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"chaperone/cmd/chaperone/problem"
	"chaperone/policy/action"
	"chaperone/policy/action/describe"
)

// imported is how `service import` was asked.
type imported struct {
	service, prefix, out string
	hosts                []string
}

func (a *app) serviceImport() *cobra.Command {
	var in imported
	c := &cobra.Command{
		Use: "import FILE", Short: "Make a catalogue file of an API's own description", Args: arguments("FILE"),
		Long: `Make a catalogue file of an API's own description: OpenAPI 3, Swagger 2 (JSON or YAML),
a Google discovery document, a GraphQL schema (.graphql), a protobuf descriptor set
(.pb, by protoc --descriptor_set_out), an AWS model, or api.md of a Stainless SDK.

What could not be taken over, and what a person should look at, is said on standard
error. Levels err upwards: a POST that may only read counts as a write, marked
maybe-read. Review the file, then name it under catalogues: in config.yaml.`,
		RunE: func(_ *cobra.Command, args []string) error { return a.importFile(args[0], &in) },
	}
	f := c.Flags()
	f.StringVar(&in.service, "service", "", "`NAME` of the service; the file's when absent")
	f.StringSliceVar(&in.hosts, "host", nil, "`HOST` under which it answers, again for more; the description's when absent")
	f.StringVar(&in.prefix, "prefix", "", "`PATH` in front of every path")
	f.StringVarP(&in.out, "output", "o", "", "write to `FILE` instead of standard output")
	return c
}

func (a *app) importFile(file string, in *imported) error {
	const hint = "OpenAPI, Swagger, Google discovery, GraphQL schemas, protobuf descriptor sets and AWS models are read"
	b, err := os.ReadFile(file)
	if err != nil {
		return problem.Failure(fmt.Errorf("reading description: %w", err), "give the path of a file on this machine")
	}
	d, err := describe.Read(file, b, describe.Options{Service: in.service, Hosts: in.hosts, Prefix: in.prefix})
	if err != nil {
		return problem.Failure(err, hint)
	}
	text, err := describe.Format(&d.Service)
	if err != nil {
		return err
	}
	if _, err := action.Parse(d.Service.Name+".json", text); err != nil {
		d.Notes = append(d.Notes, "as it stands, the file would not load: "+strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if in.out == "" {
		_, err = a.stdout.Write(text)
	} else {
		err = os.WriteFile(in.out, text, 0o644)
	}
	if err != nil {
		return fmt.Errorf("writing catalogue: %w", err)
	}
	a.summarize(d)
	return nil
}

// summarize tells what was made and what to look at.
func (a *app) summarize(d *describe.Draft) {
	rows := d.Service.Rows()
	levels, creates, forever := map[string]int{}, 0, 0
	for _, r := range rows {
		levels[string(r.Access)]++
		if r.Effects.Creates {
			creates++
			if r.Effects.Undo == "" {
				forever++
			}
		}
	}
	fmt.Fprintf(a.stderr, "%s: %d operations: %d read, %d list, %d write, %d delete, %d admin; %d create, %d of these with nothing that deletes it again\n",
		d.Service.Name, len(rows), levels["read"], levels["list"], levels["write"], levels["delete"], levels["admin"], creates, forever)
	for _, n := range d.Notes {
		fmt.Fprintln(a.stderr, "note:", n)
	}
}
