package main

import (
	"errors"

	"chaperone/audit"
	"chaperone/audit/keep"
	"chaperone/audit/proof"
)

// keepLog looks after what of the decision log has ended.
func (r *road) keepLog() error {
	key, err := proof.OpenKey(logKeyFile(r.s))
	if err != nil {
		return err
	}
	r.keeper = keep.Start(keep.Options{
		Path: r.s.Log.Path, Log: r.log, Key: key, Pack: r.s.Log.Pack,
		CheckpointEvery: r.s.Log.Checkpoints.Every, CheckpointLines: r.s.Log.Checkpoints.Lines, Elsewhere: r.s.Log.Checkpoints.To,
		Altered: r.altered, Behind: r.background.run,
		Notice: func(message string) { r.logger.Warn("decision log", "notice", message) },
	})
	return nil
}

// sign signs the log as it is now.
func (r *road) sign() error {
	if err := r.log.Flush(); err != nil {
		return err
	}
	return r.keeper.Sign()
}

// altered tells that somebody changed the decision log.
func (r *road) altered(message string) {
	r.alarm("log_altered", message+"; run `chaperone log verify`, and keep the files as they are")
}

// alarm raises an alarm that belongs to no request: in the log, the metrics and the
// messages.
func (r *road) alarm(kind, message string) {
	r.metrics.Alarm(kind)
	r.logger.Error("alarm", "kind", kind, "what", message)
	if r.log == nil {
		return
	}
	if err := r.log.Raise(audit.Alarm{Kind: kind, What: message}); err != nil && !errors.Is(err, audit.ErrClosed) {
		r.logger.Error("alarm cannot be written", "kind", kind, "error", err.Error())
	}
}

// differs tells that the policy's fast evaluator answered otherwise than OPA; from then
// on OPA answers.
func (r *road) differs(what string) {
	r.logger.Error("policy answered otherwise than OPA", "what", what)
	r.alarm("policy_differs", "policy was answered otherwise than by OPA, which answers from now on")
}
