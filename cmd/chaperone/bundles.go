package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"chaperone/cmd/chaperone/problem"
	"chaperone/cmd/chaperone/revision"
	"chaperone/cmd/chaperone/settings"
	"chaperone/policy/opa/remote"
	"chaperone/rego"
)

// policyFiles returns the policy that the settings name: a folder, a bundle, or what a
// server of bundles offers now.
func policyFiles(s *settings.Settings) (fs.FS, error) {
	path := s.Policy.Path
	if path == "" {
		return rego.FS, nil
	}
	if settings.Remote(path) {
		return fetchBundle(s)
	}
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		return os.DirFS(path), nil
	}
	if err != nil {
		return nil, problem.Failure(fmt.Errorf("loading policy: %s is neither a folder nor a bundle", path), "set policy.path in config.yaml, or leave it out for the policy in the program")
	}
	signing, err := signingOf(s)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("loading policy: %w", err)
	}
	defer f.Close()
	files, _, err := remote.Open(f, signing)
	if err != nil {
		return nil, problem.Failure(fmt.Errorf("loading policy: %s: %w", path, err), "policy.path is a folder, or a bundle as `chaperone policy build` makes it, signed with the key of policy.signing if there is one")
	}
	return files, nil
}

func signingOf(s *settings.Settings) (remote.Signing, error) {
	key, err := secretText(context.Background(), "policy.signing.key", s.Policy.Signing.Key)
	return remote.Signing{Key: key, Algorithm: s.Policy.Signing.Algorithm, Scope: s.Policy.Signing.Scope}, err
}

// bundleTime is how long the first answer of a server of bundles is waited for.
const bundleTime = 15 * time.Second

func followOptions(s *settings.Settings) (remote.Options, error) {
	signing, err := signingOf(s)
	if err != nil {
		return remote.Options{}, err
	}
	token, err := secretText(context.Background(), "policy.token", s.Policy.Token)
	return remote.Options{URL: s.Policy.Path, Signing: signing, Token: token, Poll: s.Policy.Poll, Status: s.Policy.Status}, err
}

// fetchBundle asks a server of bundles once.
func fetchBundle(s *settings.Settings) (fs.FS, error) {
	o, err := followOptions(s)
	if err != nil {
		return nil, err
	}
	if o.Dir, err = os.MkdirTemp("", "chaperone-bundle-"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(o.Dir)
	var files fs.FS
	failed := make(chan error, 1)
	o.Use = func(f fs.FS, _ string) error { files = f; return nil }
	o.Status = "" // nothing is in force by being looked at
	o.Failed = func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), bundleTime)
	defer cancel()
	f, err := remote.Follow(ctx, o)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	select {
	case <-f.First():
		return files, nil
	case err = <-failed:
	case <-ctx.Done():
		err = fmt.Errorf("%w: no answer in %v", remote.ErrServer, bundleTime)
	}
	return nil, problem.Failure(fmt.Errorf("loading policy: %w", err), "see policy.path, policy.signing and policy.token in config.yaml, and the server's own log")
}

// lastBundle is the last policy that a server of bundles offered and that was sound: it
// is kept over a restart.
func lastBundle(s *settings.Settings) (fs.FS, error) {
	k := keeper(s)
	list, err := k.History()
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, problem.Failure(errors.New("loading policy: no bundle was ever in force"), "see that the server at policy.path answers, and policy.signing")
	}
	return k.Files(list[len(list)-1].Revision)
}

// follow asks the server of bundles from now on, and waits for its first answer. Where
// it has none, the last good policy decides.
func (r *road) follow(ctx context.Context) error {
	if !settings.Remote(r.s.Policy.Path) {
		return nil
	}
	o, err := followOptions(r.s)
	if err != nil {
		return err
	}
	o.Dir = filepath.Join(r.s.State, "policy", "download")
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("following bundles: %w", err)
	}
	if o.ID, err = replicaID(r.s); err != nil {
		return err
	}
	failed := make(chan error, 1)
	o.Use = r.takeBundle
	o.Failed = func(err error) {
		r.refused("", err)
		select {
		case failed <- err:
		default:
		}
	}
	if r.bundles, err = remote.Follow(context.WithoutCancel(ctx), o); err != nil {
		return err
	}
	late := time.NewTimer(bundleTime)
	defer late.Stop()
	select {
	case <-r.bundles.First():
	case <-failed:
	case <-late.C:
		r.logger.Error("the server of bundles does not answer; the last good policy stays in force", "url", r.s.Policy.Path)
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// takeBundle puts a policy in force that the server offers. One that has a fault, or was
// in force before and gave way to another, does not replace the one that decides.
func (r *road) takeBundle(files fs.FS, name string) error {
	if err := r.bundle(files, name); err != nil {
		r.refused(name, err)
		return err
	}
	r.metrics.Reloaded("policy", nil)
	r.reloaded.Store(nil)
	return nil
}

// refused counts a bundle that was not taken, and says so once until it is another fault.
func (r *road) refused(name string, err error) {
	r.metrics.Reloaded("policy", err)
	text := err.Error()
	if old := r.reloaded.Swap(&text); old == nil || *old != text {
		r.logger.Error("bundle is not taken; the last good policy, if there is one, stays in force", "revision", name, "error", text)
	}
}

func (r *road) bundle(files fs.FS, name string) error {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	if r.engine != nil && r.engine.Current(files) {
		return nil // a server without ETag sends it again and again
	}
	engine, err := loadEngine(files, r.logger, r.differs)
	if err != nil {
		return err
	}
	k := keeper(r.s)
	list, err := k.History()
	if err != nil {
		engine.Close()
		return err
	}
	for i, e := range list {
		if e.Revision == engine.Revision() && list[len(list)-1].Revision != e.Revision {
			engine.Close()
			return problem.Failure(fmt.Errorf("the server offers policy %s, which is older: it was in force from %s and gave way to %s", e.Revision, e.Time.Format(time.RFC3339), list[i+1].Revision),
				"`chaperone policy rollback "+e.Revision+"` takes it all the same")
		}
	}
	if k.Pinned() != "" {
		engine.Close()
		r.logger.Warn("a bundle is offered and a pinned policy decides; `chaperone policy promote` takes it", "bundle", name)
		return nil
	}
	r.keep(files, revision.Entry{Revision: engine.Revision(), How: "reload", By: "bundle " + name, From: r.s.Policy.Path})
	r.usePolicy(engine)
	r.logger.Info("bundle is in force", "policy", engine.Revision(), "bundle", name)
	return nil
}
