package endtoend

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"walhook/internal/bench"
)

// benchRepetitions is how often each measure is taken in these tests.
const benchRepetitions = 1

// TestBench_ReportsEveryMeasureWithNothingPrepared runs the whole benchmark at
// sizes that show nothing about speed.
func TestBench_ReportsEveryMeasureWithNothingPrepared(t *testing.T) {
	t.Parallel()
	out := runTinyBench(t, bench.DefaultMeasures(), "--changes", "300", "--accounts", "20", "--receivers", "2", "--concurrency", "4",
		"--rates", "50,200", "--length", "400ms", "--endpoints", "100", "--trouble-rate", "300", "--trouble-length", "500ms",
		"--fan-out", "1,3", "--fan-out-deliveries", "300",
		"--senders", "1,2", "--scale-changes", "300", "--scale-rate", "200", "--scale-length", "300ms")
	var drain struct{ Drain bench.Throughput }
	if err := json.Unmarshal(out, &drain); err != nil {
		t.Fatal(err)
	}
	d := drain.Drain
	for name, figure := range map[string]bench.Spread{
		"deliveries": d.PerSecond, "steady": d.Steady, "plain POSTs": d.PlainPosts, "share": d.ShareOfPosts, "decoded": d.Decoded,
		"CPU": d.Cost.WalhookCPU, "WAL": d.Cost.WAL,
	} {
		if figure.Min <= 0 {
			t.Errorf("%s: %v", name, figure)
		}
	}
}

func TestBench_ReportsTheLongMeasuresThatAreNamed(t *testing.T) {
	t.Parallel()
	long := []string{"idle", "memory", "waiting", "aged"}
	runTinyBench(t, long, append(long, "--idle-endpoints", "100", "--idle-length", "300ms", "--idle-settle", "100ms", "--memory-changes", "300",
		"--memory-rows", "400", "--waiting", "1000", "--age", "500", "--changes", "300", "--accounts", "20")...)
}

// TestBench_MeasuresTheSameEventsOneByOneAndInBatches runs drain with --batch: both
// figures are of all events, each counted once, and the batches have several.
func TestBench_MeasuresTheSameEventsOneByOneAndInBatches(t *testing.T) {
	t.Parallel()
	out := runTinyBench(t, []string{"drain"}, "drain", "--changes", "1000", "--accounts", "10", "--receivers", "2", "--concurrency", "4", "--batch", "7")
	var report struct{ Drain bench.Throughput }
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatal(err)
	}
	b := report.Drain.Batches
	if b == nil || b.Batch != 7 || len(b.Tallies) != 2 {
		t.Fatalf("batches are %+v", b)
	}
	if ratio := b.PerSecond.Median / b.Single.Median; b.Single.Min <= 0 || ratio <= 0 || b.Ratio.Median != ratio {
		t.Errorf("one by one %v, in batches %v, ratio %v", b.Single, b.PerSecond, b.Ratio)
	}
	if single, batched := b.Tallies[0], b.Tallies[1]; single.Expected != 1000 || single.Requests != 1000 || batched.Expected != 1000 ||
		batched.Requests < 1000/7 || batched.Requests >= 1000 || single.Again+batched.Again != 0 {
		t.Errorf("one by one %+v, in batches %+v", single, batched)
	}
	if per := b.EventsPerRequest.Median; per <= 1 || per > 7 {
		t.Errorf("%v events of a batch", per)
	}
}

// runTinyBench runs the benchmark and checks that its report has all figures of
// the measures, and that every event is counted.
func runTinyBench(t *testing.T, measures []string, args ...string) []byte {
	t.Helper()
	cmd := childCommand(t, append([]string{"bench", "--json", "--repetitions", fmt.Sprint(benchRepetitions)}, args...)...)
	temp := privateTemp(t)
	cmd.Env = append(cmd.Env, "TMPDIR="+temp)
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, errOut.String())
	}
	var report map[string]any
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range measures {
		checkMeasure(t, name, report[strings.ReplaceAll(name, "-", "_")])
	}
	wantNothingLeft(t, temp)
	return out
}

// checkMeasure wants a spread of every figure, and of every count that all was
// delivered, and some of it verified.
func checkMeasure(t *testing.T, name string, measure any) {
	t.Helper()
	spreads, tallies := 0, 0
	visitReport(measure, func(path string, object map[string]any) {
		if values, ok := object["values"]; ok {
			spreads++
			taken, _ := values.([]any)
			if len(taken) < benchRepetitions || object["min"].(float64) > object["median"].(float64) || object["max"].(float64) < object["median"].(float64) {
				t.Errorf("%s%s: %v", name, path, object)
			}
		}
		if expected, ok := object["expected"].(float64); ok {
			tallies++
			if expected == 0 || object["delivered"] != expected || object["wrong"] != 0.0 || object["verified"] == 0.0 {
				t.Errorf("%s%s: %v", name, path, object)
			}
		}
	})
	if spreads == 0 || tallies < benchRepetitions {
		t.Errorf("%s: %d figures and %d counts", name, spreads, tallies)
	}
}

// visitReport calls f for every object in part of a report.
func visitReport(part any, f func(path string, object map[string]any)) {
	var visit func(path string, part any)
	visit = func(path string, part any) {
		switch part := part.(type) {
		case []any:
			for i, element := range part {
				visit(fmt.Sprintf("%s[%d]", path, i), element)
			}
		case map[string]any:
			f(path, part)
			for name, element := range part {
				visit(path+"."+name, element)
			}
		}
	}
	visit("", part)
}
