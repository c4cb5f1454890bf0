package ship

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strconv"

	"chaperone/audit"
)

// OCSFVersion is that of the schema which [NewOCSF] writes.
const OCSFVersion = "1.5.0"

// The classification of OCSF: category Application Activity, class API Activity.
const (
	ocsfCategory = 6
	ocsfClass    = 6003
)

// ocsf posts requests as OCSF API Activity.
type ocsf struct{ *poster }

// NewOCSF posts each request as an event of OCSF's class API Activity (6003) when its
// outcome is known, in JSON arrays. A request that goes on for long is told of at its
// decision too, with status Unknown and the same metadata.uid.
func NewOCSF(o HTTPOptions) Target { return ocsf{newPoster(o)} }

// Send implements [Target].
func (o ocsf) Send(ctx context.Context, batch []Item) error {
	ended := map[string]bool{}
	for i := range batch {
		if e := batch[i].Event; e.Event == "outcome" {
			ended[e.ID] = true
		}
	}
	body := array(batch, func(i *Item) any {
		switch e := i.Event; {
		case e.Event == "outcome" && i.Decision != nil:
			return Activity(i.Seq, i.Decision, e)
		case e.Event == "outcome":
			return Activity(i.Seq, e, e)
		case e.Event == "decision" && !ended[e.ID]:
			return Activity(i.Seq, e, nil)
		case e.IsAlarm() && e.Request.Method == "":
			return Activity(i.Seq, e, nil)
		}
		return nil
	})
	if len(body) == 2 {
		return nil
	}
	_, err := o.post(ctx, "", "application/json", body, false)
	return err
}

type object = map[string]any

// Activity is a request as an event of API Activity; outcome is nil where it is not
// known yet.
func Activity(seq uint64, d, outcome *audit.Event) map[string]any {
	activity, name := ocsfActivity(d)
	severity, severityName := ocsfSeverity(d)
	v := object{
		"activity_id": activity, "activity_name": name,
		"category_uid": ocsfCategory, "category_name": "Application Activity",
		"class_uid": ocsfClass, "class_name": "API Activity",
		"type_uid": ocsfClass*100 + activity, "type_name": "API Activity: " + name,
		"time": d.Time.UnixMilli(), "severity_id": severity, "severity": severityName,
		"metadata": object{
			"version": OCSFVersion, "uid": d.ID, "correlation_uid": d.ID, "sequence": seq, "log_name": "decisions",
			"product": object{"vendor_name": "chaperone", "name": "chaperone"}, "profiles": []string{"security_control"},
		},
		"actor": ocsfActor(d),
		"api":   ocsfAPI(d, outcome),
	}
	v["src_endpoint"] = endpoint(d.Request.Client)
	if d.Request.Host != "" {
		v["dst_endpoint"] = object{"hostname": d.Request.Host}
	}
	if id := d.ResourceID(); id != "" {
		r := object{"name": id, "uid": id}
		if kind, ok := d.Resource["type"].(string); ok {
			r["type"] = kind
		}
		v["resources"] = []any{r}
	}
	if d.Request.Method != "" {
		r := object{"uid": d.ID, "url": object{"hostname": d.Request.Host, "path": d.Request.Path}}
		if slices.Contains(ocsfMethods[:], d.Request.Method) {
			r["http_method"] = d.Request.Method
		}
		v["http_request"] = r
	}
	ocsfVerdict(v, d)
	ocsfOutcome(v, d, outcome)
	if u := unmapped(d); len(u) > 0 {
		v["unmapped"] = u
	}
	return v
}

// ocsfMethods are those that the schema's http_method knows; PATCH is none of them, and
// stands with others under unmapped.
var ocsfMethods = [...]string{"OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "CONNECT"}

// ocsfActivity maps access and method to OCSF's activities.
func ocsfActivity(d *audit.Event) (int, string) {
	switch d.Action.Access {
	case "read", "list":
		return 2, "Read"
	case "delete":
		return 4, "Delete"
	case "write":
		if d.Request.Method == http.MethodPost {
			return 1, "Create"
		}
		return 3, "Update"
	case "", "unknown":
		return 0, "Unknown"
	}
	return 99, "Other"
}

func ocsfSeverity(d *audit.Event) (int, string) {
	switch {
	case d.Alarm != "":
		return 4, "High"
	case d.Decision.Result == "deny" || d.Decision.Result == "ask":
		return 2, "Low"
	}
	return 1, "Informational"
}

func ocsfActor(d *audit.Event) object {
	a := object{"app_name": "unknown"}
	if d.Agent.ID != "" {
		a["app_name"] = d.Agent.ID
	}
	if d.Agent.Instance != "" {
		a["app_uid"] = d.Agent.Instance
	}
	if d.Human != (audit.EventHuman{}) {
		u := object{"type_id": 1, "type": "User"}
		set(u, "uid", d.Human.Sub)
		set(u, "email_addr", d.Human.Email)
		set(u, "name", d.Human.Name())
		a["user"] = u
		if d.Human.Iss != "" {
			a["idp"] = object{"name": d.Human.Iss}
		}
	}
	if d.Session != "" {
		a["session"] = object{"uid": d.Session}
	}
	if d.Decision.Result != "" {
		auth := object{"decision": d.Decision.Result}
		if d.Decision.Policy != "" {
			auth["policy"] = object{"name": "chaperone", "version": d.Decision.Policy}
		}
		a["authorizations"] = []any{auth}
	}
	return a
}

func ocsfAPI(d, outcome *audit.Event) object {
	api := object{"request": object{"uid": d.ID}}
	switch {
	case d.Action.ID != "":
		api["operation"] = d.Action.ID
	case d.Request.Method != "":
		api["operation"] = d.Request.Method + " " + d.Request.Host
	default:
		api["operation"] = "unknown"
	}
	if d.Action.Service != "" {
		api["service"] = object{"name": d.Action.Service}
	}
	if outcome != nil {
		r := object{}
		if outcome.Outcome.Status != 0 {
			r["code"] = outcome.Outcome.Status
		}
		set(r, "error", outcome.Outcome.Error)
		if len(r) > 0 {
			api["response"] = r
		}
	}
	return api
}

func endpoint(client string) object {
	host, port, err := net.SplitHostPort(client)
	if err != nil {
		return object{"name": "unknown"}
	}
	e := object{"ip": host}
	if n, err := strconv.Atoi(port); err == nil {
		e["port"] = n
	}
	return e
}

// ocsfVerdict says what was decided, as the profile security_control has it.
func ocsfVerdict(v object, d *audit.Event) {
	switch d.Decision.Result {
	case "allow":
		v["action_id"], v["action"], v["disposition_id"], v["disposition"] = 1, "Allowed", 1, "Allowed"
	case "deny", "ask":
		v["action_id"], v["action"], v["disposition_id"], v["disposition"] = 2, "Denied", 2, "Blocked"
	default:
		v["action_id"], v["action"], v["disposition_id"], v["disposition"] = 0, "Unknown", 0, "Unknown"
	}
	v["is_alert"] = d.Alarm != ""
	if len(d.Decision.Reasons) > 0 {
		v["message"] = d.Decision.Reasons[0]
	} else if d.What != "" {
		v["message"] = d.What
	}
}

func ocsfOutcome(v object, d, outcome *audit.Event) {
	v["status_id"], v["status"] = 0, "Unknown"
	if outcome == nil {
		return
	}
	o := outcome.Outcome
	v["end_time"], v["duration"] = outcome.Time.UnixMilli(), o.TotalUS/1000
	v["status_id"], v["status"] = 1, "Success"
	if o.Error != "" || o.Status >= 400 || d.Decision.Result == "deny" || d.Decision.Result == "ask" {
		v["status_id"], v["status"] = 2, "Failure"
	}
	set(v, "status_detail", o.Error)
	if o.Status != 0 {
		v["status_code"] = strconv.Itoa(o.Status)
		v["http_response"] = object{"code": o.Status, "length": o.BytesOut}
	}
}

// unmapped is what OCSF has no place for.
func unmapped(d *audit.Event) object {
	u := object{}
	set(u, "replica", d.Replica)
	if !slices.Contains(ocsfMethods[:], d.Request.Method) {
		set(u, "http_method", d.Request.Method)
	}
	set(u, "alarm", d.Alarm)
	set(u, "purpose", d.Purpose)
	set(u, "agent_owner", d.Agent.Owner)
	set(u, "credential", d.Credential.ID)
	set(u, "handle", d.Credential.Handle)
	set(u, "credential_beside", d.Credential.Beside.ID)
	set(u, "traceparent", d.Traceparent)
	if len(d.Chain) > 0 {
		u["chain"] = d.Chain
	}
	return u
}

func set(o object, key, value string) {
	if value != "" {
		o[key] = value
	}
}
