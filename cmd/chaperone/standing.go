package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"chaperone/cmd/chaperone/problem"
	"chaperone/cmd/chaperone/revision"
	"chaperone/cmd/chaperone/settings"
	"chaperone/policy/opa"
	"chaperone/store/replica"
)

// putUp tells all replicas which policy decides from now on. Alone there is nobody to
// tell; but what stood in a store of replicas before it was copied here is over, and
// would decide again where this one is copied back.
func (r *road) putUp(ctx context.Context, s revision.Standing) error {
	if r.shared.alone {
		return revision.NewBoard(r.shared.kv).Withdraw(ctx)
	}
	files, err := keeper(r.s).Files(s.Revision)
	if err == nil {
		err = r.shared.board.Put(ctx, files, s)
	}
	switch {
	case errors.Is(err, revision.ErrMeanwhile):
		return problem.Failure(err, "see `chaperone policy revisions`, and decide again")
	case errors.Is(err, revision.ErrLarge):
		return problem.Failure(err, "replicas share a policy through the store only up to this size; serve a larger one as a bundle (policy.path: https://…)")
	case err != nil:
		return problem.Failure(fmt.Errorf("%w; nothing was changed on any replica", err), "see `chaperone doctor`")
	}
	return nil
}

// recordUp adds to the history in the store how revisions came into force here: the one
// before, to which others may want to roll back, and the one of now.
func (r *road) recordUp(ctx context.Context, revisions ...string) {
	if r.shared.alone {
		return
	}
	k := keeper(r.s)
	list, err := k.History()
	last := map[string]revision.Entry{}
	for _, e := range list {
		last[e.Revision] = e
	}
	for _, name := range revisions {
		files, ferr := k.Files(name)
		if e, ok := last[name]; ok && ferr == nil {
			err = errors.Join(err, r.shared.board.Record(ctx, files, e))
		}
	}
	if err != nil {
		r.logger.Error("policy is in force, and its history could not be shared", "error", err.Error())
	}
}

// How long the other replicas are waited for, which compile the policy, and where each
// follows its own folder may come to another.
const (
	agreeTime  = 20 * time.Second
	followTime = 3 * time.Second
)

// agreed says which replicas decide by a policy.
func (r *road) agreed(ctx context.Context, revision string, pinned bool) []replica.Ack {
	wait := agreeTime
	if !pinned {
		wait = followTime
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	r.shared.registry.Tell()
	return r.shared.registry.Await(ctx, func(s *replica.Status) string {
		if s.Policy == revision {
			return ""
		}
		return "it decides by policy " + short(s.Policy)
	})
}

// adopt takes over the policy that was put in force on another replica. What has a fault
// leaves the last good one in force.
func (r *road) adopt(ctx context.Context) error {
	if r.shared.alone || r.shared.board.Standing().Revision == "" {
		return nil
	}
	r.reloading.Lock()
	defer r.reloading.Unlock()
	s := r.shared.board.Standing()
	var err error
	r.background.run(func() { err = r.adoptHere(ctx, s) })
	if err != nil {
		r.metrics.Reloaded("policy", err)
		err = fmt.Errorf("taking over policy %s, which replica %s put in force: %w", s.Revision, s.Replica, err)
		r.reloaded.Store(new(err.Error()))
		r.logger.Error("the last good policy stays in force, and replicas differ", "error", err.Error())
		return err
	}
	r.shared.registry.Tell()
	return nil
}

func (r *road) adoptHere(ctx context.Context, s revision.Standing) error {
	k := keeper(r.s)
	if err := r.catchUp(ctx, k, s.Entry); err != nil {
		return err
	}
	pinned := s.Revision
	if !s.Pinned {
		pinned = ""
	}
	if k.Pinned() == pinned && r.gate.Revision() == s.Revision {
		return nil
	}
	files, err := k.Files(s.Revision)
	if !s.Pinned && !settings.Remote(r.s.Policy.Path) {
		files, err = policyFiles(r.s)
	}
	if err != nil {
		return err
	}
	engine, err := r.engineOf(files)
	if err != nil {
		return err
	}
	if err := k.Pin(pinned); err != nil {
		return err
	}
	if engine.Revision() != s.Revision {
		r.logger.Warn("policy.path of this replica holds another policy than the one that was promoted", "path", r.s.Policy.Path, "policy", engine.Revision(), "promoted", s.Revision, "replica", s.Replica)
	}
	if engine == r.engine {
		return nil
	}
	r.usePolicy(engine)
	r.metrics.Reloaded("policy", nil)
	r.reloaded.Store(nil)
	r.logger.Info("policy was put in force on another replica", "how", s.How, "policy", engine.Revision(), "replica", s.Replica, "by", s.By, "reason", s.Reason)
	return nil
}

// engineOf makes an engine, unless the one in force is of these files.
func (r *road) engineOf(files fs.FS) (*opa.Engine, error) {
	if r.engine != nil && r.engine.Current(files) {
		return r.engine, nil
	}
	return loadEngine(files, r.logger, r.differs)
}

// catchUp keeps here what was put in force elsewhere, with who and when.
func (r *road) catchUp(ctx context.Context, k *revision.Keeper, now revision.Entry) error {
	here, err := k.History()
	if err != nil {
		return err
	}
	all, err := r.shared.board.History(ctx)
	if err != nil {
		return err
	}
	all = append(all, revision.Missing([]revision.Entry{now}, all)...) // its replica may not have recorded it yet
	for _, e := range revision.Missing(all, here) {
		_, err := k.Files(e.Revision)
		if err != nil {
			var files fs.FS
			if files, err = r.shared.board.Files(ctx, e.Revision); err == nil {
				err = k.Keep(e.Revision, files)
			}
		}
		if errors.Is(err, revision.ErrUnknown) && e.Revision != now.Revision {
			continue // its replica ended while it forgot it: nobody can go back to it
		}
		if err == nil {
			err = k.Note(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
