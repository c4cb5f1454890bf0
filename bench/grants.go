package main

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"testing/fstest"
	"time"

	"chaperone/policy"
	"chaperone/policy/opa"
	"chaperone/rego"
)

// crowd is how many agents a large installation has, each with 100 grants.
const crowd = 10_000

// manyGrants is a grants file for the bench's own agent and n others.
func manyGrants(n int) string {
	var y strings.Builder
	head, tail, _ := strings.Cut(grants, "  humans:\n")
	y.WriteString(head)
	for i := range n {
		fmt.Fprintf(&y, "    agent-%d:\n      allow:\n", i)
		for j := range 10 {
			y.WriteString("        - {actions: [\"github:issues/*\"")
			for k := range 9 {
				fmt.Fprintf(&y, ", \"github:x%d%d/*\"", j, k)
			}
			fmt.Fprintf(&y, "], resources: [\"org%d/*\"]}\n", j)
		}
	}
	return y.String() + "  humans:\n" + tail
}

// decisions prints what the shipped policy takes for a question that is new to it, by
// how many agents have grants.
func decisions() error {
	for _, n := range []int{10, crowd} {
		files, err := policyWith(manyGrants(n))
		if err != nil {
			return err
		}
		e, err := opa.Load(opa.Options{FS: files, Schema: rego.InputSchema})
		if err != nil {
			return fmt.Errorf("loading policy: %w", err)
		}
		took, err := newQuestions(e, n)
		e.Close()
		if err != nil {
			return err
		}
		f := figures{latency: took}
		fmt.Printf("policy, a question that is new, %d agents with 100 grants each: p50 %.1f µs, p99 %.1f µs\n", n, f.at(.5), f.at(.99))
	}
	return nil
}

// newQuestions asks about one resource after the other, for ten agents in turn.
func newQuestions(e *opa.Engine, agents int) ([]time.Duration, error) {
	var took []time.Duration
	for i := range 20_000 {
		agent := "agent-" + strconv.Itoa(i%10*agents/10)
		org := "org" + strconv.Itoa(i%10)
		q := &policy.Question{
			Agent: policy.Agent{ID: agent, Owner: "team:dev"}, Instance: "i_1", Human: &policy.Human{Sub: "h", Email: "h@example.com"},
			Session: &policy.Session{ID: "s_1", Created: 1, Expires: 2, Chain: []policy.Link{{Session: "s_1", Agent: agent, Instance: "i_1"}}},
			Action: policy.Action{ID: "github:issues/create", Service: "github", Operation: "issues/create", Access: policy.AccessWrite, Known: true,
				Keys: []string{"github:issues/create", "github:issues/*", "github:*", "*:*"}},
			Resource: policy.Resource{Type: "repository", ID: org + "/r" + strconv.Itoa(i), Keys: []string{org + "/r" + strconv.Itoa(i), org + "/*", "*"}},
			Request:  policy.Request{Method: "POST", Scheme: "https", Host: host, Port: 443, Path: plain},
			Phase:    policy.PhaseRequest, Time: 1_700_000_000,
		}
		began := time.Now()
		a, err := e.Eval(context.Background(), q)
		if i >= 1000 { // warm
			took = append(took, time.Since(began))
		}
		if err != nil || a.Result != policy.Allow {
			return nil, fmt.Errorf("question %d: %v, %w", i, a, err)
		}
	}
	slices.Sort(took)
	return took, nil
}

// policyWith is the shipped policy with other grants.
func policyWith(grants string) (fs.FS, error) {
	files := fstest.MapFS{"chaperone/grants.yaml": {Data: []byte(grants)}}
	err := fs.WalkDir(rego.FS, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || files[name] != nil {
			return err
		}
		b, err := fs.ReadFile(rego.FS, name)
		files[name] = &fstest.MapFile{Data: b}
		return err
	})
	return files, err
}
