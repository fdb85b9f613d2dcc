package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// verdict is what `shop check` prints.
type verdict struct {
	Runs         int              `json:"runs"`
	Unfinished   int              `json:"unfinished"` // runs whose last line was not their end
	Attempted    int64            `json:"attempted"`
	Acknowledged int64            `json:"acknowledged"`
	Failed       map[string]int64 `json:"failed"`
	Uncertain    int64            `json:"uncertain"`
	Found        int64            `json:"found"`  // the quantities in the carts
	Lost         int64            `json:"lost"`   // acknowledged and not there
	Excess       int64            `json:"excess"` // there, and neither acknowledged nor uncertain
	Wrong        []wrongCart      `json:"wrong,omitempty"`
}

// wrongCart is a cart that differs from the accounts.
type wrongCart struct {
	Cart         string `json:"cart"`
	Acknowledged int64  `json:"acknowledged"`
	Uncertain    int64  `json:"uncertain"`
	Found        int64  `json:"found"`
}

// runCheck compares the accounts of runs with the carts. An item that was acknowledged and is not there is lost. One
// that is there and was not acknowledged is in excess, unless its request may have been made without an answer. If a
// run was cut off, nobody knows what it did after its last line, so nothing counts as excess.
func runCheck(ctx context.Context, carts *carts, args []string, stdin io.Reader, stdout io.Writer) error {
	flags := flag.NewFlagSet("check", flag.ContinueOnError)
	if err := parse(flags, args, stdout); err != nil {
		return err
	}
	runs := map[string]tally{}
	if flags.NArg() == 0 || slices.Equal(flags.Args(), []string{"-"}) {
		if err := readTallies(stdin, runs); err != nil {
			return fmt.Errorf("check: standard input: %w", err)
		}
	} else {
		for _, name := range flags.Args() {
			if err := readFile(name, runs); err != nil {
				return fmt.Errorf("check: %w", err)
			}
		}
	}
	if len(runs) == 0 {
		return errors.New("check: no account of a load was found")
	}
	v, err := compare(ctx, carts, runs)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(stdout).Encode(v); err != nil {
		return err
	}
	if v.Lost > 0 || v.Excess > 0 {
		return fmt.Errorf("check: %d lost, %d in excess", v.Lost, v.Excess)
	}
	return nil
}

func readFile(name string, runs map[string]tally) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := readTallies(f, runs); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// readTallies keeps the last tally of each run. It skips other lines, such as those of a log, and a line that was cut
// off in the middle: the one before it counts.
func readTallies(r io.Reader, runs map[string]tally) error {
	lines := bufio.NewReader(r)
	for {
		text, err := lines.ReadBytes('\n')
		if i := bytes.IndexByte(text, '{'); i >= 0 { // a log may have put a prefix before it
			var t tally
			if json.Unmarshal(text[i:], &t) == nil && t.Run != "" && t.Attempted >= runs[t.Run].Attempted {
				if !runs[t.Run].Done { // the last line, wherever it stands
					runs[t.Run] = t
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// compare reads every cart that a run has added to.
func compare(ctx context.Context, carts *carts, runs map[string]tally) (verdict, error) {
	v := verdict{Runs: len(runs), Failed: map[string]int64{}}
	byCart := map[string]wrongCart{}
	for _, t := range runs {
		if !t.Done {
			v.Unfinished++
		}
		v.Attempted += t.Attempted
		v.Acknowledged += t.Acknowledged
		v.Uncertain += t.Uncertain
		for reason, n := range t.Failed {
			v.Failed[reason] += n
		}
		for name, c := range t.Carts {
			sum := byCart[name]
			sum.Cart = name
			sum.Acknowledged += c.Acknowledged
			sum.Uncertain += c.Uncertain
			byCart[name] = sum
		}
	}
	for name, c := range byCart {
		stored, err := carts.get(ctx, name)
		if err != nil {
			return v, fmt.Errorf("check: cart %s: %w", name, err)
		}
		for _, i := range stored.Items {
			c.Found += int64(i.Quantity)
		}
		v.Found += c.Found
		lost := max(0, c.Acknowledged-c.Found)
		excess := max(0, c.Found-c.Acknowledged-c.Uncertain)
		if v.Unfinished > 0 {
			excess = 0
		}
		v.Lost += lost
		v.Excess += excess
		if lost > 0 || excess > 0 {
			v.Wrong = append(v.Wrong, c)
		}
	}
	slices.SortFunc(v.Wrong, func(a, b wrongCart) int { return strings.Compare(a.Cart, b.Cart) })
	return v, nil
}
