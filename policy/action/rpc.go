package action

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"chaperone/policy"
)

// message is one JSON-RPC 2.0 message of a request's body.
type message struct {
	method   string
	params   map[string]any // nil when absent or a list
	response bool           // the client answers a request of the server's
}

// messages reads a JSON-RPC body: one message, or a batch. It returns why it is
// not known what they ask, if so.
func messages(r *Request) ([]message, string) {
	if r.Method != http.MethodPost || formOf(r.Header) != jsonForm {
		return nil, "jsonrpc"
	}
	if r.BodyState != policy.BodyParsed && r.BodyState != policy.BodyUnparsable {
		return nil, "body"
	}
	v, err := parseJSON(r.Body)
	if err != nil {
		return nil, "body"
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	if len(list) == 0 || len(list) > maxBatch {
		return nil, "jsonrpc"
	}
	out := make([]message, 0, len(list))
	for _, x := range list {
		m, ok := readMessage(x)
		if !ok {
			return nil, "jsonrpc"
		}
		out = append(out, m)
	}
	return out, ""
}

// readMessage reads {jsonrpc, id, method, params} or {jsonrpc, id, result|error}.
// Another member makes the message another that is not understood.
func readMessage(x any) (message, bool) {
	object, ok := x.(map[string]any)
	if !ok || object["jsonrpc"] != "2.0" {
		return message{}, false
	}
	for name := range object {
		switch name {
		case "jsonrpc", "id", "method", "params", "result", "error":
		default:
			return message{}, false
		}
	}
	_, result := object["result"]
	_, failed := object["error"]
	method, called := object["method"]
	params, given := object["params"]
	if result || failed {
		return message{response: true}, !called && !given && result != failed
	}
	name, ok := method.(string)
	m := message{method: name}
	switch params := params.(type) {
	case map[string]any:
		m.params = params
	case []any:
	default:
		ok = ok && !given
	}
	return m, ok && name != ""
}

// jsonRPC names every message of a request by its method.
func (k *compiled) jsonRPC(r *Request, q *policy.Question) error {
	list, why := messages(r)
	var acts []policy.Act
	for _, m := range list {
		op := k.keyed[m.method]
		if op == nil || m.response {
			why = "jsonrpc"
			break
		}
		acts = append(acts, policy.Act{Action: op.action, Resource: policy.Resource{Keys: anyResource}})
	}
	k.several(acts, why, q)
	return nil
}

// several makes one or many acts the question's, or none with the reason.
func (k *compiled) several(acts []policy.Act, why string, q *policy.Question) {
	if why != "" || len(acts) == 0 {
		q.Action, q.Resource, q.Actions = unknown(k.Name, why), policy.Resource{}, nil
		return
	}
	q.Action, q.Resource = acts[0].Action, acts[0].Resource
	if len(acts) > 1 {
		q.Actions = acts
	}
}

// mcp names what a request asks of a Model Context Protocol server by streamable
// HTTP: the method, on the tool, prompt or resource that it names. What a tool does
// is the server's secret, so its call is admin unless the catalogue says otherwise
// of that tool ("tools/call:NAME" among its ops).
func (k *compiled) mcp(r *Request, q *policy.Question) error {
	switch {
	case r.Method != http.MethodPost && len(r.Header["Mcp-Method"])+len(r.Header["Mcp-Name"]) > 0:
		return fmt.Errorf("%w: Mcp-Method or Mcp-Name without a message", ErrAmbiguous)
	case r.Method == http.MethodGet && r.BodyState == policy.BodyAbsent:
		q.Action = known(k.Name, k.prefix+"stream/open", policy.AccessRead)
		q.Resource = policy.Resource{Keys: anyResource}
		return nil
	case r.Method == http.MethodDelete && r.BodyState == policy.BodyAbsent:
		q.Action = known(k.Name, k.prefix+"session/close", policy.AccessWrite)
		q.Resource = policy.Resource{Keys: anyResource}
		return nil
	}
	list, why := messages(r)
	if why != "" {
		q.Action = unknown(k.Name, why)
		return nil
	}
	if err := checkMirror(r.Header, list); err != nil {
		return err
	}
	var acts []policy.Act
	for i := range list {
		a, ok := k.call(&list[i])
		if !ok {
			why = "mcp"
			break
		}
		acts = append(acts, a)
	}
	k.several(acts, why, q)
	return nil
}

// call is the act of one message.
func (k *compiled) call(m *message) (policy.Act, bool) {
	if m.response { // an answer to the server's sampling or question: it takes data out
		return policy.Act{Action: known(k.Name, k.prefix+"respond", policy.AccessWrite), Resource: policy.Resource{Keys: anyResource}}, true
	}
	level, ok := mcpMethods[m.method]
	if !ok {
		return policy.Act{}, false
	}
	act := policy.Act{Action: known(k.Name, k.prefix+m.method, level), Resource: policy.Resource{Keys: anyResource}}
	kind, _ := mcpNames(m.method)
	if kind == "" {
		return act, true
	}
	name := m.name()
	if name == "" {
		return policy.Act{}, false
	}
	if op := k.keyed[m.method+":"+name]; op != nil {
		act.Action = op.action
	}
	act.Resource = policy.Resource{Type: kind, ID: name, Params: []policy.Param{{Name: kind, Value: name}}, Keys: resourceKeys(name)}
	return act, true
}

// mcpMethods are the methods of the protocol's revisions up to 2026-07-28.
var mcpMethods = map[string]policy.Access{
	"initialize": policy.AccessRead, "ping": policy.AccessRead, "server/discover": policy.AccessRead,
	"tools/list": policy.AccessList, "tools/call": policy.AccessAdmin,
	"resources/list": policy.AccessList, "resources/templates/list": policy.AccessList, "resources/read": policy.AccessRead,
	"resources/subscribe": policy.AccessRead, "resources/unsubscribe": policy.AccessRead, "subscriptions/listen": policy.AccessRead,
	"prompts/list": policy.AccessList, "prompts/get": policy.AccessRead, "completion/complete": policy.AccessRead, "logging/setLevel": policy.AccessWrite,
	"tasks/list": policy.AccessList, "tasks/get": policy.AccessRead, "tasks/result": policy.AccessRead, "tasks/cancel": policy.AccessWrite,
	"tasks/update":              policy.AccessWrite,
	"notifications/initialized": policy.AccessRead, "notifications/cancelled": policy.AccessRead, "notifications/progress": policy.AccessRead,
	"notifications/roots/list_changed": policy.AccessRead, "notifications/tasks/status": policy.AccessRead,
}

// mcpNames tells what a method names, and in which parameter.
func mcpNames(method string) (kind, param string) {
	switch method {
	case "tools/call":
		return "tool", "name"
	case "prompts/get":
		return "prompt", "name"
	case "resources/read", "resources/subscribe", "resources/unsubscribe":
		return "resource", "uri"
	}
	return "", ""
}

// name is what the message names, or "".
func (m *message) name() string {
	_, param := mcpNames(m.method)
	name, _ := m.params[param].(string)
	return name
}

// checkMirror compares the fields that repeat the body's method and name (MCP
// 2026-07-28, "Standard MCP Request Headers"): something on the way may go by them,
// so one that says otherwise makes the request unclear.
func checkMirror(h http.Header, list []message) error {
	methods, names := h["Mcp-Method"], h["Mcp-Name"]
	if len(methods)+len(names) == 0 {
		return nil
	}
	differs := fmt.Errorf("%w: Mcp-Method or Mcp-Name is not what the body says", ErrAmbiguous)
	if len(list) != 1 || len(methods) > 1 || len(names) > 1 {
		return differs
	}
	if len(methods) == 1 && methods[0] != list[0].method {
		return differs
	}
	if len(names) == 1 && (list[0].name() == "" || plainField(names[0]) != list[0].name()) {
		return differs
	}
	return nil
}

// plainField undoes the encoding =?base64?…?= of a field's value.
func plainField(v string) string {
	coded, ok := strings.CutPrefix(v, "=?base64?")
	coded, end := strings.CutSuffix(coded, "?=")
	if !ok || !end {
		return v
	}
	b, err := base64.StdEncoding.Strict().DecodeString(coded)
	if err != nil || !utf8.Valid(b) {
		return v
	}
	return string(b)
}
