package audit

import (
	"go.uber.org/zap/zapcore"
)

// Alarm is a sign of a leak, an attack or a fault that belongs to no request, such as
// a policy that fails or a log that was changed.
type Alarm struct {
	Kind    string // of a fixed vocabulary, such as log_altered
	What    string // what happened, in words; nothing that an agent chose freely
	Agent   Agent
	Session string
}

// Raise writes an alarm. It returns when the line is with the kernel.
func (l *Log) Raise(a Alarm) error {
	r := l.Open(l.o.Now())
	r.Alarm, r.Agent, r.Session = a.Kind, a.Agent, a.Session
	return l.append(l.encode(&alarmEvent{r, a.What}))
}

// alarmEvent is the line of an alarm: of a request, under its id, or by itself.
type alarmEvent struct {
	*Record
	what string
}

// alarmOf is the alarm of a request.
func alarmOf(r *Record) *alarmEvent {
	what := ""
	if len(r.Decision.Reasons) > 0 {
		what = r.Decision.Reasons[0]
	}
	return &alarmEvent{r, what}
}

// MarshalLogObject writes the alarm event.
func (a *alarmEvent) MarshalLogObject(e zapcore.ObjectEncoder) error {
	r := a.Record
	e.AddTime("time", r.Time())
	e.AddString("id", r.ID)
	e.AddString("event", "alarm")
	e.AddString("alarm", r.Alarm)
	text(e, "what", a.what)
	if r.Agent.ID != "" {
		object(e, "agent", (*agentObject)(r))
	}
	if r.Human != nil {
		object(e, "human", (*humanObject)(r.Human))
	}
	text(e, "session", r.Session)
	if r.Action.Service != "" || r.Action.Known || r.Action.Why != "" {
		object(e, "action", (*actionObject)(&r.Action))
	}
	if r.Resource.ID != "" || len(r.Resource.Params) > 0 {
		object(e, "resource", (*resourceObject)(&r.Resource))
	}
	if r.Request.Method != "" {
		object(e, "request", (*requestObject)(&r.Request))
	}
	if r.Credential != (Credential{}) {
		object(e, "credential", (*credentialObject)(&r.Credential))
	}
	text(e, "replica", r.log.o.Replica)
	return nil
}
