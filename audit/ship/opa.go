package ship

import (
	"context"
	"encoding/json"
	"time"

	"chaperone/audit"
)

// opa posts decisions to what takes OPA's decision logs.
type opa struct{ *poster }

// NewOPA posts decisions in the format and to the path of OPA's decision log service
// API: gzip'd JSON arrays to URL/logs.
func NewOPA(o HTTPOptions) Target { return opa{newPoster(o)} }

// Send implements [Target].
func (o opa) Send(ctx context.Context, batch []Item) error {
	body := array(batch, func(i *Item) any {
		if i.Event.Event != "decision" {
			return nil
		}
		return Decision(i.Line, i.Event)
	})
	if len(body) == 2 {
		return nil
	}
	_, err := o.post(ctx, "/logs", "application/json", body, true)
	return err
}

// Decision is a decision as an event of OPA's decision log.
func Decision(line []byte, e *audit.Event) map[string]any {
	var all map[string]json.RawMessage
	if json.Unmarshal(line, &all) != nil {
		return nil
	}
	input := object{}
	for _, key := range [...]string{"agent", "human", "session", "purpose", "chain", "action", "actions", "resource", "request", "credential"} {
		if v, ok := all[key]; ok {
			input[key] = v
		}
	}
	result := object{"result": e.Decision.Result}
	if len(e.Decision.Reasons) > 0 {
		result["reasons"] = e.Decision.Reasons
	}
	if len(e.Decision.Obligations) > 0 {
		result["obligations"] = e.Decision.Obligations
	}
	v := object{
		"labels": object{"app": "chaperone"}, "decision_id": e.ID, "path": "chaperone/decision", "input": input, "result": result,
		"timestamp": e.Time.UTC().Format(time.RFC3339Nano),
	}
	set(v["labels"].(object), "replica", e.Replica)
	set(v, "requested_by", e.Request.Client)
	if e.Decision.Policy != "" {
		v["bundles"] = object{"chaperone": object{"revision": e.Decision.Policy}}
	}
	if trace := e.Values("trace"); len(trace) > 0 && trace[0] != "" {
		v["trace_id"] = trace[0]
	}
	if masked, ok := all["masked"]; ok {
		v["erased"] = masked
	}
	return v
}
