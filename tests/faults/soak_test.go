package faults_test

import (
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
)

// TestSoak finds faults that need time: memory, descriptors and tasks that grow, and faults that overlap. cargo
// xtask soak sets its duration.
func TestSoak(t *testing.T) {
	minutes, err := strconv.ParseFloat(os.Getenv("SOAK_MINUTES"), 64)
	if err != nil {
		t.Skip("cargo xtask soak --minutes N")
	}
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("SOAK_SEED"); given != "" {
		seed, err = strconv.ParseUint(given, 10, 64)
		must(t, err)
	}
	s := newSoak(t, rand.New(rand.NewPCG(seed, 0)))
	t.Logf("SOAK | %v minutes, seed %d", minutes, seed)
	for until := time.Now().Add(time.Duration(minutes * float64(time.Minute))); time.Now().Before(until); {
		s.round()
	}
	s.conclude()
}

// soak has two plugins that share a key. One is never restarted, so that leaks show. The other is killed at
// times.
type soak struct {
	t      *testing.T
	chance *rand.Rand
	raft   *parts.Raft
	lasts  *trial
	killed *trial

	samples    samples
	recoveries map[string][]time.Duration
	rotations  int
}

func newSoak(t *testing.T, chance *rand.Rand) *soak {
	t.Helper()
	raft := ownRaft(t)
	leader, err := raft.UntilWhole()
	must(t, err)
	n := newTenant(t, raft)
	const early = "--rotation-delay=5s"
	s := &soak{
		t: t, chance: chance, raft: raft,
		lasts:      newTrial(t, n, raft.Addresses(leader), early),
		killed:     newTrial(t, n, raft.Addresses(leader), early),
		recoveries: map[string][]time.Duration{},
	}
	s.lasts.begin()
	s.killed.begin()
	s.sample()
	return s
}

// round runs one fault and checks the recovery, or makes a rotation.
func (s *soak) round() {
	s.t.Helper()
	fault := soakFaults[s.chance.IntN(len(soakFaults))]
	s.t.Logf("SOAK | %v | %s", time.Since(s.samples[0].at).Round(time.Second), fault.name)
	fault.run(s)
	// The cause has ended at this point.
	over, since := time.Now(), parts.StartWatch()
	for _, x := range []*trial{s.lasts, s.killed} {
		x.over = over
		x.untilQuiet()
		at, _ := recovered(x.ledger.since(over), over)
		recovery := at.Sub(over)
		s.recoveries[fault.name] = append(s.recoveries[fault.name], recovery)
		if recovery > since.Stretched(recoveryBound) {
			s.t.Errorf("%s: the plugin recovers after %v", fault.name, recovery)
		}
	}
	s.shareStored()
	s.sample()
}

// shareStored makes each plugin decrypt the last object of the other one.
func (s *soak) shareStored() {
	s.t.Helper()
	s.lasts.requireReads(s.killed.firstAndNewest(10))
	s.killed.requireReads(s.lasts.firstAndNewest(10))
}

func (s *soak) conclude() {
	s.t.Helper()
	for _, x := range []*trial{s.lasts, s.killed} {
		x.load.end()
	}
	s.lasts.requireSameProcess()
	// All connections and tasks that end by themselves have ended now.
	time.Sleep(quiet)
	s.sample()
	s.tell()
	s.samples.requireFlat(s.t)
}

func (s *soak) tell() {
	s.t.Helper()
	for name, x := range map[string]*trial{"the one that lasts": s.lasts, "the one that is killed": s.killed} {
		a, c := accountOf(x.ledger.since(x.began), time.Now()), x.counters()
		s.t.Logf("SOAK | %s | %d Encrypt, %d Decrypt, %d Status | failures: %s | slowest success %v | %v retries, %v logins",
			name, a.calls["Encrypt"], a.calls["Decrypt"], a.calls["Status"], a.failures(),
			a.slowest.Round(time.Millisecond), c.retries, c.logins)
	}
	for _, fault := range soakFaults {
		if all := s.recoveries[fault.name]; len(all) > 0 {
			s.t.Logf("SOAK | %s | %d times | worst recovery %v", fault.name, len(all)/2, slices.Max(all).Round(time.Millisecond))
		}
	}
	s.t.Logf("SOAK | %d rotations | %s", s.rotations, s.samples)
}
