package proxy

import (
	"encoding/json"
	"encoding/xml"
	"net/http"
	"strings"
	"testing"
)

// TestRefusalShapes finds reason, hint and decision id where each SDK looks for its
// error's message, and the standard members beside it.
func TestRefusalShapes(t *testing.T) {
	p := &problem{Title: "Denied by policy", Status: 403, DecisionID: "01ID", Detail: "No grant for <x> & \"y\".", Hint: "Ask."}
	f := refusal{status: 403, code: "denied"}
	const want = "No grant for <x> & \"y\". Ask. (chaperone decision 01ID)"
	for shape, path := range map[string]string{
		"github": "message", "slack": "message", "stripe": "error.message", "openai": "error.message", "anthropic": "error.message",
		"google": "error.message", "graphql": "errors.0.message", "jsonrpc": "error.message", "mcp": "error.message", "aws": "message",
		"kubernetes": "message", "npm": "error", "cargo": "errors.0.detail", "oci": "errors.0.message",
	} {
		body, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var got any
		if err := json.Unmarshal(inShape(shape, body, f, p, http.Header{}), &got); err != nil {
			t.Errorf("%s: %v", shape, err)
			continue
		}
		if got.(map[string]any)["decision_id"] != "01ID" {
			t.Errorf("%s: the standard members are gone: %v", shape, got)
		}
		for key := range strings.SplitSeq(path, ".") {
			if list, ok := got.([]any); ok && key == "0" {
				got = list[0]
			} else {
				got = got.(map[string]any)[key]
			}
		}
		if got != want {
			t.Errorf("%s: %s is %v", shape, path, got)
		}
	}
}

// TestRefusalsOfAnthropic begin as Anthropic's own errors do: its SDKs print the body.
func TestRefusalsOfAnthropic(t *testing.T) {
	for status, word := range map[int]string{403: "permission_error", 429: "rate_limit_error", 502: "api_error", 400: "invalid_request_error"} {
		got := string(inShape("anthropic", []byte(`{}`), refusal{status: status}, &problem{Status: status, Detail: "No."}, http.Header{}))
		if want := `{"type":"error","error":{"message":"No. (chaperone decision )","type":"` + word + `"},"title":`; !strings.HasPrefix(got, want) {
			t.Errorf("%d: %s", status, got)
		}
	}
}

// TestRefusalsOfGit are text, for git shows no other, where it shows any.
func TestRefusalsOfGit(t *testing.T) {
	for path, want := range map[string]bool{"/acme/web.git/info/refs": true, "/acme/web.git/git-upload-pack": false, "/repos/acme/web": false} {
		if got := ofGit(&http.Request{Header: http.Header{"User-Agent": {"git/2.39.5"}}}, path); got != want {
			t.Errorf("%s: %v", path, got)
		}
		if ofGit(&http.Request{Header: http.Header{"User-Agent": {"git-lfs/3.3.0"}}}, path) {
			t.Errorf("%s: LFS reads JSON", path)
		}
	}
	h := http.Header{}
	if got := string(inShape(gitText, []byte("{}"), refusal{status: 403}, &problem{Detail: "No grant.", Hint: "Ask.", DecisionID: "01ID"}, h)); got != "No grant. Ask. (chaperone decision 01ID)\n" || h.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("%q as %v", got, h)
	}
}

// TestRefusalsOfAWS are in the protocol in which the request came.
func TestRefusalsOfAWS(t *testing.T) {
	type fault struct{ Code, Message string }
	for _, tc := range []struct {
		host, contentType, shape string
		read                     func(*testing.T, []byte) fault
	}{
		{"sts.amazonaws.com", "application/x-www-form-urlencoded; charset=utf-8", awsQuery, func(t *testing.T, b []byte) fault {
			var in struct{ Error fault }
			check(t, xml.Unmarshal(b, &in))
			return in.Error
		}},
		{"ec2.eu-west-1.amazonaws.com", "application/x-www-form-urlencoded", awsEC2, func(t *testing.T, b []byte) fault {
			var in struct{ Errors struct{ Error fault } }
			check(t, xml.Unmarshal(b, &in))
			return in.Errors.Error
		}},
		{"s3.amazonaws.com", "", awsS3, func(t *testing.T, b []byte) fault {
			var in fault
			check(t, xml.Unmarshal(b, &in))
			return in
		}},
		{"bucket.s3.eu-west-1.amazonaws.com", "application/json", awsS3, nil},
		{"dynamodb.eu-west-1.amazonaws.com", "application/x-amz-json-1.0", "aws", nil},
		{"lambda.eu-west-1.amazonaws.com", "", "aws", nil},
	} {
		r := &http.Request{Header: http.Header{"Content-Type": {tc.contentType}}}
		shape := shapeFor("aws", r, tc.host)
		if shape != tc.shape {
			t.Errorf("%s: shape %s, want %s", tc.host, shape, tc.shape)
		}
		h := http.Header{}
		p := &problem{DecisionID: "01ID", Detail: "No <grant>."}
		body := inShape(shape, []byte(`{"a":1}`), refusal{status: 403}, p, h)
		if tc.read != nil {
			if got := tc.read(t, body); got.Code != "AccessDenied" || got.Message != "No <grant>. (chaperone decision 01ID)" {
				t.Errorf("%s: got %+v of %s", tc.host, got, body)
			}
		} else if shape == "aws" && h.Get("X-Amzn-Errortype") != "AccessDeniedException" {
			t.Errorf("%s: %v", tc.host, h)
		}
	}
}

func TestRefusalsOfGRPC(t *testing.T) {
	for contentType, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "application/grpc;x=y": true, "application/grpc-web": false, "application/json": false, "": false,
	} {
		if speaksGRPC(contentType) != want {
			t.Errorf("%q: want %v", contentType, want)
		}
	}
	if got := grpcMessage("50 %\n\u00e9"); got != "50 %25%0A%C3%A9" {
		t.Errorf("got %q", got)
	}
	for _, f := range refusals {
		if grpcNameOf(f.status) == "" {
			t.Errorf("%s: status %d has no name", f.code, f.status)
		}
	}
}

// TestRefusalsOfSlack come to Slack's SDK for Node as errors of Slack, with the reason
// in the one member that it shows, and to everyone else with their own status.
func TestRefusalsOfSlack(t *testing.T) {
	for agent, want := range map[string]string{
		"@slack:web-api/8.2.0 node/24.0.0 linux/6.1": slackSDK, "Python/3.11.7 slackclient/3.47.0 Linux/6.1": "slack", "curl/8.0": "slack", "": "slack",
	} {
		for _, name := range []string{"User-Agent", "user-agent"} { // as it is written once the request went out
			if got := shapeFor("slack", &http.Request{Header: http.Header{name: {agent}}}, "slack.com"); got != want {
				t.Errorf("%s: %q: shape %s, want %s", name, agent, got, want)
			}
		}
	}
	var got struct {
		OK    bool
		Error string
	}
	p := &problem{Detail: "No grant.", DecisionID: "01ID"}
	check(t, json.Unmarshal(inShape(slackSDK, []byte(`{"a":1}`), refusal{status: 403}, p, http.Header{}), &got))
	if got.OK || got.Error != "No grant. (chaperone decision 01ID)" {
		t.Errorf("got %+v", got)
	}
}
