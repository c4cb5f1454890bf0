package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"chaperone/cmd/chaperone/admin"
	"chaperone/cmd/chaperone/problem"
	"chaperone/cmd/chaperone/revision"
	"chaperone/cmd/chaperone/settings"
	"chaperone/policy/action"
	"chaperone/policy/opa"
	"chaperone/rego"
)

// keeper is where the policies of a configuration are kept.
func keeper(s *settings.Settings) *revision.Keeper {
	return revision.New(filepath.Join(s.State, "policy"))
}

// liveFiles is the policy that decides: the pinned revision, or what stands at
// policy.path.
func liveFiles(s *settings.Settings) (fs.FS, error) {
	k := keeper(s)
	pinned := k.Pinned()
	if pinned == "" && settings.Remote(s.Policy.Path) {
		return lastBundle(s)
	}
	if pinned == "" {
		return policyFiles(s)
	}
	files, err := k.Files(pinned)
	if err != nil {
		return nil, problem.Failure(fmt.Errorf("loading policy: the pinned revision is gone: %w", err), "`chaperone policy promote` puts another in force; see `chaperone policy revisions`")
	}
	return files, nil
}

// shadow puts the policy of policy.shadow beside the live one. One that has a fault
// leaves the last good one there.
func (r *road) shadow() error {
	if r.s.Policy.Shadow == "" {
		return nil
	}
	other := *r.s
	other.Policy.Path = r.s.Policy.Shadow
	files, err := policyFiles(&other)
	if err != nil {
		return err
	}
	if r.shadowed != nil && r.shadowed.Current(files) {
		return nil
	}
	e, err := loadEngine(files, r.logger, r.differs)
	if err != nil {
		return fmt.Errorf("in the shadow: %w", err)
	}
	r.gate.Shadow(e)
	if r.shadowed != nil {
		r.shadowed.Close()
	}
	r.shadowed = e
	r.logger.Info("policy runs in the shadow", "policy", e.Revision(), "path", r.s.Policy.Shadow)
	return nil
}

// firstPolicy puts the policy of the start in force, and beside it the one in the shadow.
func (r *road) firstPolicy(ctx context.Context) error {
	if err := r.follow(ctx); err != nil {
		return err
	}
	engine, err := loadPolicy(r.s, r.logger, r.differs)
	if last := r.reloaded.Load(); err != nil && last != nil {
		return fmt.Errorf("%w: %s", err, *last)
	}
	if err != nil {
		return err
	}
	r.usePolicy(engine)
	if pinned := keeper(r.s).Pinned(); pinned != "" {
		r.logger.Info("a pinned policy decides; edits at policy.path take no effect", "policy", pinned)
	}
	return r.shadow()
}

// noteStart keeps the policy of the start, and warns of grants for what no catalogue
// has: one that lost an action must not keep the proxy from starting. What was to be
// denied and is not must.
func (r *road) noteStart() error {
	files, err := denied(r.s, r.engine, r.catalogue.Load())
	if err != nil {
		return err
	}
	for _, f := range r.engine.UnknownActions(names{r.catalogue.Load()}, grantsText(files)) {
		r.logger.Warn("a grant is for what does not exist", "at", fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Col), "fault", f.Message)
	}
	r.noted("start")
	return nil
}

// denied returns the files of the policy that decides, unless it denies what no catalogue
// has.
func denied(s *settings.Settings, e *opa.Engine, c *action.Catalogue) (fs.FS, error) {
	files, err := liveFiles(s)
	if err == nil {
		err = grantsExist(e, c, files, true)
	}
	if pinned := keeper(s).Pinned(); err != nil && pinned != "" {
		err = problem.Failure(err, fmt.Sprintf("promoted policy %s decides, which `chaperone policy check --policy %s` checks: have config.yaml name the services and actions that it speaks of, start, and promote another", pinned, filepath.Join(s.State, "policy", pinned)))
	}
	return files, err
}

func (r *road) noted(how string) {
	k := keeper(r.s)
	if k.Pinned() != "" {
		return // it was kept when it was promoted
	}
	files, err := liveFiles(r.s)
	if err != nil || settings.Remote(r.s.Policy.Path) {
		return // it was read a moment ago, and is gone; a bundle was kept when it came
	}
	r.keep(files, revision.Entry{Revision: r.engine.Revision(), How: how, By: "policy.path", From: r.s.Policy.Path})
}

// grantsExist refuses grants for actions that no catalogue has; of those that allow it
// takes no notice where that is said.
func grantsExist(e *opa.Engine, c *action.Catalogue, files fs.FS, lenient bool) error {
	faults := e.UnknownActions(names{c}, grantsText(files))
	if lenient {
		faults = faults.Errors()
	}
	if len(faults) == 0 {
		return nil
	}
	return problem.Failure(fmt.Errorf("loading policy: %w", faults), "`chaperone policy check` shows each place, `chaperone service show` the names")
}

// grantsText is what grants.yaml says, or nothing.
func grantsText(files fs.FS) []byte {
	b, err := fs.ReadFile(files, "chaperone/grants.yaml")
	if err != nil {
		return nil
	}
	return b
}

// keep keeps the policy that came into force, and notes how. What it cannot write down
// it says in the log: a policy that was put in force stays.
func (r *road) keep(files fs.FS, e revision.Entry) {
	k := keeper(r.s)
	if e.Time.IsZero() {
		e.Time = time.Now().UTC()
	}
	list, err := k.History()
	if err == nil && len(list) > 0 && list[len(list)-1].Revision == e.Revision && (e.How == "start" || e.How == "reload") {
		return
	}
	if err := errors.Join(err, k.Keep(e.Revision, files), k.Note(e)); err != nil {
		r.logger.Error("policy is in force, and could not be kept", "policy", e.Revision, "error", err.Error())
	}
}

// promote puts a policy in force that passes its check and its tests.
func (r *road) promote(ctx context.Context, in admin.Promotion) (admin.Promoted, error) {
	if in.Path == "" {
		in.Path = r.s.Policy.Shadow
	}
	if in.Path == "" {
		return admin.Promoted{}, problem.Misuse("there is nothing to promote: no path is named and no policy runs in the shadow", "name a path, or set policy.shadow in config.yaml")
	}
	other := *r.s
	other.Policy.Path = in.Path
	files, err := policyFiles(&other)
	if err != nil {
		return admin.Promoted{}, err
	}
	if err := r.vet(ctx, files); err != nil {
		return admin.Promoted{}, err
	}
	follow := r.s.Policy.Path != "" && in.Path == r.s.Policy.Path
	return r.enforce(ctx, files, revision.Entry{How: "promote", By: in.By, Reason: in.Reason, From: in.Path}, !follow)
}

// vet checks and tests a policy before it decides.
func (r *road) vet(ctx context.Context, files fs.FS) error {
	const hint = "what runs stays; `chaperone policy check` and `chaperone policy test` with --policy show the same"
	faults, err := opa.Check(opa.CheckOptions{FS: files, Schema: rego.InputSchema, Names: names{r.catalogue.Load()}})
	if err != nil {
		return err
	}
	if faults = faults.Errors(); len(faults) > 0 {
		return problem.Failure(fmt.Errorf("the policy has %s:\n%w", count(len(faults), "fault"), faults), hint)
	}
	report, err := testPolicy(ctx, r.s, files)
	if err != nil {
		return problem.Failure(err, hint)
	}
	if n := report.Failed(); n > 0 {
		at := slices.IndexFunc(report.Results, func(t opa.TestResult) bool { return !t.Pass })
		first := report.Results[at]
		return problem.Failure(fmt.Errorf("%d of %d policy tests fail, the first is %s (%s) %s", n, len(report.Results), first.Name, first.Place, first.Message), hint)
	}
	return nil
}

// enforce swaps a policy in at once, for all replicas.
func (r *road) enforce(ctx context.Context, files fs.FS, e revision.Entry, pin bool) (admin.Promoted, error) {
	out, err := r.enforceHere(ctx, files, e, pin)
	if err == nil && !r.shared.alone {
		out.Replicas = r.agreed(ctx, out.Revision, pin)
	}
	return out, err
}

func (r *road) enforceHere(ctx context.Context, files fs.FS, e revision.Entry, pin bool) (admin.Promoted, error) {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	engine, err := loadEngine(files, r.logger, r.differs)
	if err != nil {
		return admin.Promoted{}, err
	}
	out := admin.Promoted{Was: r.gate.Revision(), Revision: engine.Revision(), Pinned: pin}
	k := keeper(r.s)
	pinned := ""
	if pin {
		pinned = engine.Revision()
	}
	e.Revision, e.Time = engine.Revision(), r.shared.clock().UTC()
	if err = k.Keep(engine.Revision(), files); err == nil {
		err = r.putUp(ctx, revision.Standing{Entry: e, Pinned: pin, Replica: r.shared.id})
	}
	if err == nil {
		err = k.Pin(pinned)
	}
	if err != nil {
		engine.Close()
		return admin.Promoted{}, err
	}
	r.usePolicy(engine)
	r.keep(files, e)
	r.logger.Info("policy was put in force", "how", e.How, "policy", e.Revision, "was", out.Was, "by", e.By, "reason", e.Reason)
	r.recordUp(ctx, out.Was, out.Revision)
	return out, nil
}

// rollback puts an earlier revision in force again, without its tests: it was in force.
func (r *road) rollback(ctx context.Context, in admin.Rollback) (admin.Promoted, error) {
	k := keeper(r.s)
	var err error
	to := in.Revision
	if to == "" {
		to, err = k.Before(r.gate.Revision())
	} else {
		to, err = k.Find(to)
	}
	if err != nil {
		return admin.Promoted{}, problem.Failure(err, "see `chaperone policy revisions`")
	}
	files, err := k.Files(to)
	if err != nil {
		return admin.Promoted{}, problem.Failure(err, "see `chaperone policy revisions`")
	}
	return r.enforce(ctx, files, revision.Entry{How: "rollback", By: in.By, Reason: in.Reason}, true)
}

// loadPolicy makes an engine, and tells the log when it is a slow one, or gave an
// answer that it should not have given.
func loadPolicy(s *settings.Settings, logger *slog.Logger, alarm func(string)) (*opa.Engine, error) {
	files, err := liveFiles(s)
	if err != nil {
		return nil, err
	}
	return loadEngine(files, logger, alarm)
}

func loadEngine(files fs.FS, logger *slog.Logger, alarm func(string)) (*opa.Engine, error) {
	engine, err := opa.Load(opa.Options{FS: files, Schema: rego.InputSchema, Alarm: alarm})
	if err != nil {
		return nil, problem.Failure(fmt.Errorf("loading policy: %w", err), "mend it and run `chaperone policy check`")
	}
	if why := engine.Slow(); why != "" {
		logger.Warn("policy is answered by OPA's own evaluator, which is slower", "policy", engine.Revision(), "why", why)
	}
	return engine, nil
}

// usePolicy puts an engine into force, and ends what the one before does beside requests.
func (r *road) usePolicy(e *opa.Engine) {
	r.counting.Store(e)
	r.gate.Use(e)
	if r.engine != nil && r.engine != e {
		r.engine.Close()
	}
	r.engine = e
}

// freshPolicy reads the policy again. One that did not change stays, with what it
// remembers: compiling takes a CPU for a while.
func (r *road) freshPolicy() (*opa.Engine, error) {
	files, err := liveFiles(r.s)
	if err != nil {
		return nil, err
	}
	if r.engine != nil && r.engine.Current(files) {
		return r.engine, nil
	}
	engine, err := loadEngine(files, r.logger, r.differs)
	if err == nil {
		err = grantsExist(engine, r.catalogue.Load(), files, false)
	}
	return engine, err
}
