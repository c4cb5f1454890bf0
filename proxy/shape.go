package proxy

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// The shapes that depend on the request and not on the service alone. AWS speaks
// four protocols, and each of its SDKs looks into the one that it sent.
const (
	awsQuery = "aws-query" // form in, XML out: SQS of old, IAM, STS, SNS
	awsEC2   = "aws-ec2"   // the same with an envelope of its own
	awsS3    = "aws-s3"    // XML without an envelope
)

// slackSDK is Slack's form for its SDK for Node, with status 200, the one refusal that
// departs from the status in the table: of any other status this SDK shows the number
// and never the body, and it asks again ten times in half an hour. Slack's own service
// answers its errors with 200. The record has the status of the table.
const slackSDK = "slack-sdk"

// gitText is for git, which shows a person of a refusal's body what is text/plain and no
// more (remote-curl.c, show_http_message), and does so where it asks for refs.
const gitText = "git-text"

// ofGit reports whether git asks for a repository's refs.
func ofGit(r *http.Request, path string) bool {
	return strings.HasPrefix(strings.Join(field(r.Header, "User-Agent"), ""), "git/") && strings.HasSuffix(path, "/info/refs")
}

// ofSlack reports whether a request comes from that SDK, by the name that it gives
// itself.
func ofSlack(r *http.Request) bool {
	return strings.Contains(strings.Join(field(r.Header, "User-Agent"), ""), "@slack:web-api/")
}

// ofGaxios reports whether a request comes from Google's libraries for Node, by the name
// that they give themselves: they look into a body that is application/json, and take one
// that is a problem's for a file.
func ofGaxios(r *http.Request) bool {
	return strings.Contains(strings.Join(field(r.Header, "User-Agent"), ""), "google-api-nodejs-client/")
}

// shapeFor is the shape of one request's refusal.
func shapeFor(shape string, r *http.Request, host string) string {
	if shape == "slack" && ofSlack(r) {
		return slackSDK
	}
	if shape != "aws" {
		return shape
	}
	first, _, _ := strings.Cut(host, ".")
	switch {
	case strings.HasPrefix(strings.Join(field(r.Header, "Content-Type"), ""), "application/x-www-form-urlencoded"):
		if first == "ec2" {
			return awsEC2
		}
		return awsQuery
	case first == "s3" || strings.HasPrefix(first, "s3-") || strings.Contains(host, ".s3.") || strings.Contains(host, ".s3-"):
		return awsS3
	}
	return shape
}

// inShape adds the members under which the service's own SDK looks for an
// error's message. RFC 9457 section 3.2 allows them beside the standard ones. Where
// the SDK reads XML the whole body is that.
func inShape(shape string, body []byte, f refusal, p *problem, h http.Header) []byte {
	message := inOneLine(p)
	var extra any
	switch shape {
	case gitText:
		h.Set("Content-Type", "text/plain; charset=utf-8")
		return []byte(message + "\n")
	case "github":
		extra = map[string]string{"message": message}
	case "slack":
		extra = map[string]any{"ok": false, "error": f.code, "message": message}
	case slackSDK:
		extra = map[string]any{"ok": false, "error": message}
	case "stripe", "openai":
		extra = map[string]any{"error": map[string]any{"type": errorType(f.status), "code": f.code, "message": message}}
	case "anthropic":
		return ofAnthropic(body, f, p, message)
	case "oauth2": // RFC 6749 section 5.2
		extra = map[string]string{"error": oauthError(f.status), "error_description": message}
	case "google":
		extra = map[string]any{"error": map[string]any{"code": f.status, "status": grpcNameOf(f.status), "message": message}}
	case "graphql":
		extra = map[string]any{"data": nil, "errors": []any{map[string]any{"message": message, "extensions": map[string]any{"code": "FORBIDDEN", "reason": f.code}}}}
	case "jsonrpc", "mcp": // which request of a batch it was is not looked into: RFC 9110's status speaks for all
		extra = map[string]any{"jsonrpc": "2.0", "id": nil, "error": map[string]any{"code": -32001, "message": message, "data": map[string]any{"reason": f.code}}}
	case "kubernetes":
		h.Set("Content-Type", "application/json")
		return kubernetesStatus(f, p, message)
	case "npm":
		extra = map[string]any{"error": message}
	case "cargo":
		extra = map[string]any{"errors": []any{map[string]any{"detail": message}}}
	case "oci": // the distribution specification's form of errors
		extra = map[string]any{"errors": []any{map[string]any{"code": "DENIED", "message": message}}}
	case "aws":
		h.Set("X-Amzn-Errortype", awsCode(f.status)+"Exception")
		h.Set("X-Amzn-Requestid", p.DecisionID)
		h.Set("Content-Type", "application/json")
		extra = map[string]any{"__type": awsCode(f.status) + "Exception", "message": message}
	case awsQuery, awsEC2, awsS3:
		h.Set("Content-Type", "text/xml")
		return awsXML(shape, awsCode(f.status), message, p.DecisionID)
	default:
		return body
	}
	more, err := json.Marshal(extra)
	if err != nil {
		return body
	}
	return append(append(body[:len(body)-1], ','), more[1:]...)
}

// oauthError is the word by which clients of OAuth 2.0 tell errors apart. They repeat
// what is unavailable for the moment.
func oauthError(status int) string {
	if status >= http.StatusInternalServerError || status == http.StatusTooManyRequests {
		return "temporarily_unavailable"
	}
	return "access_denied"
}

// ofAnthropic is an error of Anthropic's with the members of a problem behind its own:
// its SDKs print the whole body, and what comes first is read.
func ofAnthropic(body []byte, f refusal, p *problem, message string) []byte {
	b, err := json.Marshal(struct {
		Type       string            `json:"type"`
		Error      map[string]string `json:"error"`
		Title      string            `json:"title"`
		Status     int               `json:"status"`
		Detail     string            `json:"detail"`
		DecisionID string            `json:"decision_id"`
		Reasons    []string          `json:"reasons,omitempty"`
		Hint       string            `json:"hint,omitempty"`
	}{"error", map[string]string{"type": errorType(f.status), "message": message}, p.Title, p.Status, p.Detail, p.DecisionID, p.Reasons, p.Hint})
	if err != nil {
		return body
	}
	return b
}

// errorType is the word by which Stripe, OpenAI and Anthropic tell errors apart.
func errorType(status int) string {
	switch {
	case status == http.StatusForbidden:
		return "permission_error"
	case status == http.StatusTooManyRequests:
		return "rate_limit_error"
	case status >= http.StatusInternalServerError:
		return "api_error"
	}
	return "invalid_request_error"
}

// inOneLine is all that a person needs, for SDKs that show one message alone.
func inOneLine(p *problem) string {
	message := p.Detail
	if p.Hint != "" {
		message += " " + p.Hint
	}
	return message + " (chaperone decision " + p.DecisionID + ")"
}

// kubernetesStatus is a Status of Kubernetes' API (meta/v1), with the members of a
// problem but for status, which is a word there.
func kubernetesStatus(f refusal, p *problem, message string) []byte {
	b, err := json.Marshal(map[string]any{
		"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure", "code": f.status, "reason": kubernetesReason(f.status), "message": message,
		"type": p.Type, "title": p.Title, "detail": p.Detail, "decision_id": p.DecisionID, "reasons": p.Reasons, "hint": p.Hint,
	})
	if err != nil {
		return []byte("{}")
	}
	return b
}

// kubernetesReason is the reason of a Status by which its clients choose their error.
func kubernetesReason(status int) string {
	switch status {
	case http.StatusForbidden:
		return "Forbidden"
	case http.StatusServiceUnavailable, http.StatusBadGateway:
		return "ServiceUnavailable"
	case http.StatusGatewayTimeout:
		return "Timeout"
	}
	return "BadRequest"
}

// awsCode is the code by which AWS's SDKs choose the error that they raise. They
// repeat what is unavailable and give up on the others.
func awsCode(status int) string {
	if status >= http.StatusInternalServerError {
		return "ServiceUnavailable"
	}
	return "AccessDenied"
}

func awsXML(shape, code, message, id string) []byte {
	var text strings.Builder
	if err := xml.EscapeText(&text, []byte(message)); err != nil {
		return nil // a builder takes all
	}
	fault := "<Code>" + code + "</Code><Message>" + text.String() + "</Message>"
	const head = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"
	switch shape {
	case awsS3:
		return []byte(head + "<Error>" + fault + "<RequestId>" + id + "</RequestId></Error>")
	case awsEC2:
		return []byte(head + "<Response><Errors><Error>" + fault + "</Error></Errors><RequestID>" + id + "</RequestID></Response>")
	}
	return []byte(head + "<ErrorResponse><Error><Type>Sender</Type>" + fault + "</Error><RequestId>" + id + "</RequestId></ErrorResponse>")
}

// speaksGRPC reports whether a content type is that of gRPC; gRPC-Web has another.
func speaksGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(contentType, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// refuseGRPC answers with trailers alone: a client of gRPC shows no body, and takes
// any status but 200 for a fault of the way.
func (x *exchange) refuseGRPC(f refusal, p *problem) {
	h := x.w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", strconv.Itoa(grpcCodeOf(f.status)))
	h.Set("Grpc-Message", grpcMessage(inOneLine(p)))
	x.w.WriteHeader(http.StatusOK)
	x.started = true
}

// grpcCodeOf is the code of google.rpc.Code for a status of HTTP.
func grpcCodeOf(status int) int {
	switch status {
	case http.StatusForbidden:
		return 7 // PERMISSION_DENIED
	case http.StatusProxyAuthRequired:
		return 16 // UNAUTHENTICATED
	case http.StatusGatewayTimeout:
		return 4 // DEADLINE_EXCEEDED
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return 14 // UNAVAILABLE
	}
	return 3 // INVALID_ARGUMENT
}

func grpcNameOf(status int) string {
	return map[int]string{3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED", 7: "PERMISSION_DENIED", 14: "UNAVAILABLE", 16: "UNAUTHENTICATED"}[grpcCodeOf(status)]
}

// grpcMessage encodes a message as gRPC over HTTP/2 demands: bytes beyond printable
// ASCII, and the percent sign, by their percent-encoding.
func grpcMessage(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
