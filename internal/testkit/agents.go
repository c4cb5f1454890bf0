package testkit

import (
	"encoding/json"
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
		answer(w, 200, map[string]any{"id": "msg_1", "type": "message", "role": "assistant", "model": "small", "stop_reason": "end_turn",
			"content": []any{map[string]any{"type": "text", "text": "hello from the model"}},
			"usage":   map[string]any{"input_tokens": 1, "output_tokens": 1}})
	})
}

// Drive is a stand-in of Google Drive's list of files.
func Drive(secret string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+secret {
			answer(w, 401, map[string]any{"error": map[string]any{"code": 401, "status": "UNAUTHENTICATED", "message": "Invalid Credentials"}})
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
		case r.Method != http.MethodPost:
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
		default:
			w.WriteHeader(http.StatusAccepted)
		}
	})
}
