package action

import (
	"runtime"
	"strings"
	"testing"

	"chaperone/policy"
)

// TestEffects holds what catalogues say of what actions leave behind to sense: the
// undoing action exists, places can be read, and what only looks leaves nothing.
func TestEffects(t *testing.T) {
	c := shippedCatalogue(t)
	creates, undo, known := 0, 0, 0
	for _, s := range c.Services() {
		rows := s.Rows()
		names := map[string]bool{}
		for _, r := range rows {
			names[r.Action] = true
		}
		for _, r := range rows {
			e := r.Effects
			looks := r.Access == policy.AccessRead || r.Access == policy.AccessList
			switch {
			case e.Undo != "" && !names[e.Undo]:
				t.Errorf("%s is undone by %s, which is nothing", r.Action, e.Undo)
			case looks && (e.Creates || e.Deletes || e.Lasting || e.Undo != ""):
				t.Errorf("%s only looks and leaves %v", r.Action, r.Marks)
			case e.ID != "" && !strings.HasPrefix(e.ID, "/") && !strings.HasPrefix(e.ID, "body:/") && !strings.HasPrefix(e.ID, "{"):
				t.Errorf("%s: the place %q cannot be read", r.Action, e.ID)
			case !e.Creates && e.ID != "":
				t.Errorf("%s has an id and creates nothing", r.Action)
			}
			if e.Creates {
				creates++
				undo += one(e.Undo != "")
				known += one(e.ID != "")
			}
		}
	}
	if undo*100 < creates*80 || known*100 < creates*98 {
		t.Errorf("of %d actions that create, %d say what undoes them and %d where the id is", creates, undo, known)
	}
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestSensitive wants what hands out or changes secrets, lets somebody in or runs
// code never to be had with a grant of reads or writes.
func TestSensitive(t *testing.T) {
	c := shippedCatalogue(t)
	levels := map[string]map[policy.Access]bool{}
	for _, s := range c.Services() {
		for _, r := range s.Rows() {
			if levels[r.Action] == nil {
				levels[r.Action] = map[policy.Access]bool{}
			}
			levels[r.Action][r.Access] = true
		}
	}
	for id := range strings.FieldsSeq(`aws-secretsmanager:GetSecretValue aws-sts:AssumeRole aws-iam:CreateUser aws-iam:CreateAccessKey aws-ec2:GetPasswordData
		aws-s3:PutBucketPolicy aws-s3:PutPublicAccessBlock aws-lambda:UpdateFunctionCode aws-lambda:AddPermission aws-sns:Subscribe
		kubernetes:secrets/get kubernetes:pods/exec/connect kubernetes:serviceaccounts/token/create kubernetes:rbac.authorization.k8s.io/rolebindings/create
		github:repos/create-webhook github:repos/add-collaborator github:git/update-ref github:actions/create-workflow-dispatch github:graphql/mutation.createRef
		gitlab:project_variables/create_variable gitlab:project_hooks/add_project_hook gitlab:pipelines/create_pipeline
		google-drive:permissions.create google-gmail:users.settings.forwardingAddresses.create google-gmail:users.settings.filters.create google-calendar:acl.insert google-storage:projects.hmacKeys.create
		msgraph:subscriptions.create msgraph:me.drive.items.createLink msgraph:me.mailFolders.messageRules.create
		slack:conversations.invite slack:files.sharedPublicURL stripe:webhook_endpoints/create stripe:payouts/create okta:user/createUser okta:api-token/revokeApiToken
		datadog:key-management/CreateAPIKey twilio:CreateNewKey sendgrid:api_keys/create cloudflare:workers.scripts.update cloudflare:accounts.members.create
		digitalocean:sshKeys/create digitalocean:kubernetes/get_kubeconfig linear:graphql/mutation.webhookCreate asana:webhooks/createWebhook
		pagerduty:user/create_user zendesk:webhooks/create salesforce:apexrest/call mcp:tools/call`) {
		if !levels[id][policy.AccessAdmin] || len(levels[id]) > 1 {
			t.Errorf("%s is %v", id, levels[id])
		}
	}
}

// TestCatalogueIsSmall bounds the memory of the whole catalogue with every operation
// read: 20 MiB.
func TestCatalogueIsSmall(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	c := shippedCatalogue(t)
	for _, s := range c.Services() {
		hosts := s.Hosts
		for _, api := range s.APIs {
			hosts = append(hosts, api.Hosts...)
		}
		for _, h := range hosts {
			name, _, _ := strings.Cut(exampleHost(&Service{Name: s.Name, Hosts: []string{h}}), "/")
			_, path, _ := strings.Cut(h, "/")
			if path != "" {
				path += "/"
			}
			if _, err := classify(t, c, &Request{Method: "GET", Host: name, Path: "/" + path + "x"}); err != nil {
				t.Errorf("%s: %v", h, err)
			}
		}
	}
	if used := int64(heap()) - int64(before); used > 20<<20 {
		t.Errorf("the catalogue takes %d KiB", used>>10)
	} else {
		t.Logf("%d KiB", used>>10)
	}
	runtime.KeepAlive(c)
}
