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
		Notice: func(message string) { r.logger.Warn("decision log", "notice", message) },
	})
	return nil
}
