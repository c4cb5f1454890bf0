package main

import (
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
		Path: r.s.Log.Path, Key: key, Pack: r.s.Log.Pack,
		CheckpointEvery: r.s.Log.Checkpoints.Every, CheckpointLines: r.s.Log.Checkpoints.Lines, Elsewhere: r.s.Log.Checkpoints.To,
		Altered: r.altered,
		Notice:  func(message string) { r.logger.Warn("decision log", "notice", message) },
	})
	return nil
}

// altered tells that somebody changed the decision log.
func (r *road) altered(message string) {
	r.metrics.Alarm("log_altered")
	r.logger.Error("decision log", "alarm", "log_altered", "what", message, "hint", "run `chaperone log verify`, and keep the files as they are")
}
