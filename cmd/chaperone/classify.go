package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chaperone/cmd/chaperone/problem"
	"chaperone/policy"
	"chaperone/policy/action"
	"chaperone/proxy/authority"
)

// written is a request as it is written on a command line, beside METHOD and URL.
type written struct {
	data    string   // the body, or @FILE
	headers []string // NAME: VALUE
}

// classify names a request that is written as METHOD URL, or URL alone for GET.
func classify(catalogue *action.Catalogue, args []string, more *written) (*action.Request, *policy.Question, error) {
	r, q, err := readRequest(args)
	if err != nil {
		return nil, nil, err
	}
	for _, h := range more.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok || name == "" {
			return nil, nil, problem.Misuse(fmt.Sprintf("%q is not NAME: VALUE", h), "write --header 'Content-Type: application/json'")
		}
		r.Header.Add(name, strings.TrimSpace(value))
	}
	body := []byte(more.data)
	if file, ok := strings.CutPrefix(more.data, "@"); ok {
		if body, err = os.ReadFile(file); err != nil {
			return nil, nil, problem.Failure(fmt.Errorf("reading the body: %w", err), "--data @FILE reads a file on this machine")
		}
	}
	if more.data != "" {
		r.Body, r.BodyState = body, policy.BodyParsed
		if len(r.Header["Content-Type"]) == 0 {
			r.Header.Set("Content-Type", contentType(body))
		}
		q.Request.Body, q.Request.BodyState = action.ParseBody(r.Header, body)
		if n := catalogue.NeedsBody(r); n > 0 && len(body) > n {
			r.Body, r.BodyState = body[:n], policy.BodyTruncated
		}
	}
	q.Request.Header = r.Header
	return r, q, catalogue.Classify(r, q)
}

// readRequest reads METHOD URL. Path and query stay as they are written.
func readRequest(args []string) (*action.Request, *policy.Question, error) {
	const hint = "write METHOD URL, such as GET https://api.github.com/user"
	if len(args) == 1 {
		args = []string{http.MethodGet, args[0]}
	}
	if len(args) != 2 {
		return nil, nil, problem.Misuse("a request is METHOD URL", hint)
	}
	u, err := url.Parse(args[1])
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, nil, problem.Misuse(fmt.Sprintf("%q is not a URL that could be requested", args[1]), hint)
	}
	port := 443
	if u.Scheme == "http" {
		port = 80
	}
	host, port, err := authority.Parse(u.Host, port)
	if err != nil {
		return nil, nil, problem.Misuse(err.Error(), hint)
	}
	_, rest, _ := strings.Cut(args[1], "://")
	rest = rest[strings.Index(rest, u.Host)+len(u.Host):]
	path, query, _ := strings.Cut(rest, "?")
	if path == "" {
		path = "/"
	}
	r := &action.Request{Method: strings.ToUpper(args[0]), Host: host, Path: path, RawQuery: query, Header: http.Header{}, BodyState: policy.BodyAbsent}
	return r, &policy.Question{Phase: policy.PhaseRequest, Time: time.Now().Unix(), Request: policy.Request{
		Method: r.Method, Scheme: u.Scheme, Host: host, Port: port, Path: path, RawQuery: query, BodyState: policy.BodyAbsent,
	}}, nil
}

// contentType guesses what a client would say of a body.
func contentType(body []byte) string {
	if json.Valid(body) {
		return "application/json"
	}
	return "application/x-www-form-urlencoded"
}

// named is what a request was classified as, and why.
type named struct {
	Action   string        `json:"action"`
	Access   policy.Access `json:"access"`
	Known    bool          `json:"known"`
	Why      string        `json:"why,omitzero"`
	Type     string        `json:"resource_type,omitzero"`
	Resource string        `json:"resource,omitzero"`
	Keys     []string      `json:"keys"`
	On       []string      `json:"resource_keys,omitzero"`
	action.Explanation
}

func (a *app) serviceClassify() *cobra.Command {
	var more written
	c := &cobra.Command{
		Use: "classify METHOD URL", Short: "Name the action that a request would perform, and say why",
		Long: `Name the action that a request would perform, and say why: the host and the template
of the catalogue that it fits, what told the action, and the patterns by which grants
reach it. For a request that has no name: the reason, what to do, and the nearest
operations of the service.`,
		Args: func(*cobra.Command, []string) error { return nil },
		RunE: func(_ *cobra.Command, args []string) error {
			catalogue, err := a.catalogue()
			if err != nil {
				return err
			}
			r, q, err := classify(catalogue, args, &more)
			if errors.Is(err, action.ErrAmbiguous) {
				return problem.Failure(err, "the proxy refuses such a request with 400, whatever policy says: write it in the one plain way")
			}
			if err != nil {
				return err
			}
			list := namedActs(q, catalogue.Explain(r, q))
			return a.print(list, func(w io.Writer) {
				for i := range list {
					describeNamed(w, &list[i])
				}
			})
		},
	}
	c.Flags().StringVar(&more.data, "data", "", "the request's `BODY`, or @FILE")
	c.Flags().StringArrayVar(&more.headers, "header", nil, "a field of the request, `NAME: VALUE`, again for more")
	return c
}

// namedActs lists the actions of a question.
func namedActs(q *policy.Question, x action.Explanation) []named {
	acts := q.Actions
	if len(acts) == 0 {
		acts = []policy.Act{{Action: q.Action, Resource: q.Resource}}
	}
	var list []named
	for _, one := range acts {
		n := named{one.Action.ID, one.Action.Access, one.Action.Known, one.Action.Why, one.Resource.Type, one.Resource.ID, one.Action.Keys, nil, x}
		if one.Action.Known {
			n.On = one.Resource.Keys
		}
		list = append(list, n)
	}
	return list
}

func describeNamed(w io.Writer, n *named) {
	if !n.Known {
		row(w, "action", "not known ("+n.Why+"): "+n.Reason)
		row(w, "do", n.Hint)
		for _, near := range n.Nearest {
			row(w, "nearest", near.Method+" "+near.Path+"  "+near.Action+" "+string(near.Access))
		}
		row(w, "grant", "only a raw grant (hosts, methods, path_prefix) reaches it")
		return
	}
	row(w, "action", n.Action)
	row(w, "access", n.Access)
	if n.Resource != "" {
		row(w, "resource", n.Type+" "+n.Resource)
	}
	told := n.Parser + " at " + n.Host
	if n.Template != "" {
		told += ", " + n.Template
	}
	row(w, "told by", told)
	row(w, "granted by", strings.Join(n.Keys, "  "))
	row(w, "on", strings.Join(n.On, "  "))
}
