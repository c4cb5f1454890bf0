package testkit

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// Anthropic is a stand-in of Anthropic's API for messages. Its SDKs send the key in
// a field of its own or, the newer ones, as bearer.
func Anthropic(secret string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Api-Key") != secret && r.Header.Get("Authorization") != "Bearer "+secret {
			answer(w, 401, map[string]any{"type": "error", "error": map[string]any{"type": "authentication_error", "message": "invalid x-api-key"}})
			return
		}
		var in struct {
			Model  string
			Stream bool
		}
		switch {
		case r.URL.Path == "/v1/models":
			answer(w, 200, map[string]any{"data": []any{map[string]any{"id": "small", "type": "model", "display_name": "Small", "created_at": "2026-01-01T00:00:00Z"}},
				"has_more": false, "first_id": "small", "last_id": "small"})
			return
		case json.NewDecoder(r.Body).Decode(&in) == nil && in.Stream:
			speak(w, r, in.Model == "endless")
			return
		}
		answer(w, 200, map[string]any{"id": "msg_1", "type": "message", "role": "assistant", "model": "small", "stop_reason": "end_turn",
			"content": []any{map[string]any{"type": "text", "text": "hello from the model"}},
			"usage":   map[string]any{"input_tokens": 1, "output_tokens": 1}})
	})
}

// speak streams a message as events, without end if so asked.
func speak(w http.ResponseWriter, r *http.Request, endless bool) {
	w.Header().Set("Content-Type", "text/event-stream")
	event := func(kind, more string) error {
		fmt.Fprintf(w, "event: %s\ndata: {\"type\":%q%s}\n\n", kind, kind, more)
		return http.NewResponseController(w).Flush()
	}
	event("message_start", `,"message":{"id":"msg_1","type":"message","role":"assistant","model":"small","content":[],"usage":{"input_tokens":1,"output_tokens":1}}`)
	event("content_block_start", `,"index":0,"content_block":{"type":"text","text":""}`)
	say := func(text string) error {
		return event("content_block_delta", fmt.Sprintf(`,"index":0,"delta":{"type":"text_delta","text":%q}`, text))
	}
	if endless {
		Tick(r.Context(), func(n int) error { return say(fmt.Sprint("tick ", n, "\n")) }) // until the client is gone
		return
	}
	say("hello from the model")
	event("content_block_stop", `,"index":0`)
	event("message_delta", `,"delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":4}`)
	event("message_stop", "")
}

// Drive is a stand-in of Google Drive's list of files.
func Drive(secret string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+secret {
			answer(w, 401, map[string]any{"error": map[string]any{"code": 401, "status": "UNAUTHENTICATED", "message": "Invalid Credentials"}})
			return
		}
		if r.Method == http.MethodPost {
			answer(w, 200, map[string]any{"kind": "drive#file", "id": "f2", "name": "draft"})
			return
		}
		answer(w, 200, map[string]any{"kind": "drive#fileList", "files": []any{map[string]any{"id": "f1", "name": "plan"}}})
	})
}

// MCP is a server of the Model Context Protocol over streamable HTTP with one tool
// and no sessions.
func MCP(secret string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			ID     any
			Method string
			Params struct {
				ProtocolVersion string `json:"protocolVersion"`
			}
		}
		switch {
		case r.Header.Get("Authorization") != "Bearer "+secret:
			answer(w, 401, map[string]any{})
			return
		case r.Method != http.MethodPost: // no stream of its own, as the protocol allows
			answer(w, 405, map[string]any{})
			return
		case json.NewDecoder(r.Body).Decode(&in) != nil:
			answer(w, 400, map[string]any{})
			return
		}
		reply := func(result map[string]any) {
			answer(w, 200, map[string]any{"jsonrpc": "2.0", "id": in.ID, "result": result})
		}
		switch in.Method {
		case "initialize":
			reply(map[string]any{"protocolVersion": in.Params.ProtocolVersion, "capabilities": map[string]any{"tools": map[string]any{}},
				"serverInfo": map[string]any{"name": "stand-in", "version": "1"}})
		case "tools/list":
			reply(map[string]any{"tools": []any{map[string]any{"name": "look", "inputSchema": map[string]any{"type": "object"}}}})
		case "tools/call":
			reply(map[string]any{"content": []any{map[string]any{"type": "text", "text": "looked"}}})
		default:
			w.WriteHeader(http.StatusAccepted)
		}
	})
}
