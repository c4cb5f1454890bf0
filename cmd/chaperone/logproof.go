package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chaperone/audit"
	"chaperone/audit/proof"
	"chaperone/cmd/chaperone/peers"
	"chaperone/cmd/chaperone/problem"
	"chaperone/cmd/chaperone/settings"
)

// sounding is what verify is told to hold the log against.
type sounding struct {
	head        string
	checkpoints []string
	proofs      string
	key         string
}

func (a *app) logVerify() *cobra.Command {
	var o sounding
	c := &cobra.Command{
		Use: "verify", Short: "Check that no line was changed, removed, inserted, moved or cut off", Args: noArguments,
		Long: `Follow the hash chain through all segments, and hold the lines against the Merkle tree
and the newest signed checkpoint beside the log. Somebody who can write all of these can
make them fit each other: hold the log against a checkpoint that was kept elsewhere with
--checkpoint. With --proof check what log prove printed; that needs no log, only the
public key.`,
		Example: `  chaperone log verify --checkpoint /mnt/worm/000000120000.checkpoint
  chaperone log verify --proof case-17.proof --key log.pub`,
		RunE: func(*cobra.Command, []string) error {
			if o.proofs != "" {
				return a.checkProof(&o)
			}
			s, err := a.logSettings()
			if err != nil {
				return err
			}
			return a.verifyLog(s, &o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.head, "head", "", "`HASH` of a line that must be in it, as an earlier verify printed it")
	f.StringSliceVar(&o.checkpoints, "checkpoint", nil, "`FILE` of a checkpoint that was kept elsewhere; may be repeated")
	f.StringVar(&o.proofs, "proof", "", "check the proofs in `FILE` (- for standard input) and nothing else")
	f.StringVar(&o.key, "key", "", "`FILE` of the log's public key, or the key itself; that of this installation if left out")
	return c
}

// publicKey reads the key that was named, or that of this installation.
func (a *app) publicKey(named string, s func() (*settings.Settings, error)) (*proof.Public, error) {
	hint := "`chaperone log key` prints it where the log is"
	if named != "" {
		if strings.Count(named, "+") >= 2 {
			if _, err := os.Stat(named); errors.Is(err, fs.ErrNotExist) {
				k, err := proof.ParsePublic(named)
				return k, hinted(err, hint)
			}
		}
		k, err := proof.LoadPublic(named)
		return k, hinted(err, hint)
	}
	set, err := s()
	if err != nil {
		return nil, err
	}
	k, err := proof.LoadPublic(proof.PublicFile(logKeyFile(set)))
	return k, hinted(err, "name the log's public key with --key; "+hint)
}

func hinted(err error, hint string) error {
	if err == nil {
		return nil
	}
	return problem.Failure(err, hint)
}

func (a *app) verifyLog(s *settings.Settings, o *sounding) error {
	public, err := a.publicKey(o.key, a.settings)
	if errors.Is(err, fs.ErrNotExist) && o.key == "" && len(o.checkpoints) == 0 {
		public, err = nil, nil // a log that was never signed: its chain is what there is
	}
	if err != nil {
		return err
	}
	report, err := proof.Verify(proof.VerifyOptions{Path: s.Log.Path, Head: o.head, Key: public, Checkpoints: o.checkpoints})
	if err != nil {
		return err
	}
	if err := a.print(report, func(w io.Writer) {
		describeReport(w, &report)
		if report.First > 1 && s.Log.Keep == 0 {
			row(w, "note", fmt.Sprintf("lines 1 to %d are not here although log.keep keeps all: somebody archived them, or took them away", report.First-1))
		}
	}); err != nil {
		return err
	}
	if report.Bad != nil {
		return problem.Failure(fmt.Errorf("the log was altered: %w", report.Bad), "keep all files as they are and compare them with a copy; what stands before that line is sound")
	}
	return nil
}

func describeReport(w io.Writer, r *proof.Report) {
	row(w, "lines", strconv.FormatUint(r.Lines, 10)+" in "+strconv.Itoa(r.Segments)+" files")
	row(w, "numbers", fmt.Sprintf("%d to %d", r.First, r.Last))
	row(w, "head", r.Head)
	if r.Torn {
		row(w, "note", "the last line is half-written, as a power cut leaves it; that is no tampering")
	}
	if r.Bad != nil {
		row(w, "chain", "is broken, or does not lead to what was signed")
		row(w, "first bad line", fmt.Sprintf("number %d, %s:%d", r.Bad.Seq, r.Bad.File, r.Bad.Line))
		return
	}
	row(w, "chain", "holds")
	switch {
	case len(r.Checkpoints) == 0:
		row(w, "signed", "nothing yet")
	case r.Signed < int64(r.Last):
		row(w, "signed", fmt.Sprintf("lines up to %d, by %d checkpoints; the last %d are not yet", r.Signed, len(r.Checkpoints), int64(r.Last)-r.Signed))
	default:
		row(w, "signed", fmt.Sprintf("all lines, by %d checkpoints", len(r.Checkpoints)))
	}
}

// checkedLine is a proof that holds, as it is printed in JSON.
type checkedLine struct {
	ID     string `json:"id"`
	Event  string `json:"event"`
	Number uint64 `json:"number"`
	Size   int64  `json:"checkpoint_size"`
	Origin string `json:"origin"`
}

func (a *app) checkProof(o *sounding) error {
	public, err := a.publicKey(o.key, a.settings)
	if err != nil {
		return err
	}
	var text []byte
	if o.proofs == "-" {
		text, err = io.ReadAll(a.stdin)
	} else {
		text, err = os.ReadFile(o.proofs)
	}
	if err != nil {
		return fmt.Errorf("reading proof: %w", err)
	}
	proved, err := proof.Check(text, public)
	if err != nil {
		return problem.Failure(err, "see that the file is as `chaperone log prove` printed it and that the key is that log's")
	}
	var list []checkedLine
	for _, p := range proved {
		e, err := audit.Parse(p.Line)
		if err != nil {
			return err
		}
		list = append(list, checkedLine{e.ID, e.Event, p.Number, p.Size, p.Origin})
	}
	return a.print(list, func(w io.Writer) {
		for i, p := range list {
			row(w, "proved", fmt.Sprintf("line %d is in log %s, signed with %d lines: the %s of %s", p.Number, p.Origin, p.Size, p.Event, p.ID))
			row(w, "", audit.Printable(string(proved[i].Line)))
		}
	})
}

func (a *app) logProve() *cobra.Command {
	var r whose
	c := &cobra.Command{
		Use: "prove ID", Short: "Print a proof that the lines of one request are in the log", Args: arguments("ID"),
		Long: `Print a proof, as C2SP tlog-proof has it, that the decision and the outcome of one
request are in the log under its newest signed checkpoint. It holds both lines; log verify
--proof checks it anywhere with the public key of that replica's log.`,
		Example: "  chaperone log prove 01K4… > case-17.proof",
		RunE: func(c *cobra.Command, args []string) error {
			l, err := a.logs(c.Context(), &r)
			if err != nil {
				return err
			}
			x, err := l.find(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.prove(c.Context(), l, x)
		},
	}
	r.flags(c)
	return c
}

// prove prints the proofs of an exchange, made where its log is.
func (a *app) prove(ctx context.Context, l *logs, x *audit.Exchange) error {
	d := x.Decision
	q := peers.Wanted(&audit.Filter{ID: d.ID, Since: d.Time, Until: d.Time.Add(time.Microsecond)})
	q.Ask = peers.Prove
	for _, o := range l.list {
		proved := false
		for p, err := range o.ask(ctx, q) {
			switch {
			case err != nil && strings.Contains(err.Error(), proof.ErrUnsigned.Error()):
				return problem.Failure(err, "a running proxy signs every minute (log.checkpoints.every), and when it stops")
			case err != nil:
				return problem.Failure(err, "run `chaperone log verify` where the log is")
			case p.Note != "":
				l.note(p.Note)
			}
			if _, err := io.WriteString(a.stdout, p.Proof); err != nil {
				return err
			}
			proved = proved || p.Proof != ""
		}
		if proved {
			return nil
		}
	}
	return fmt.Errorf("proving %s: its lines were found, and are gone", d.ID)
}

func (a *app) logKey() *cobra.Command {
	return &cobra.Command{
		Use: "key", Short: "Print the public key by which proofs and checkpoints are checked", Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			public, err := a.publicKey("", a.settings)
			if err != nil {
				return err
			}
			return a.print(map[string]string{"key": public.Text}, func(w io.Writer) { row(w, public.Text) })
		},
	}
}
