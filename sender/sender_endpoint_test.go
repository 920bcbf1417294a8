package sender

import (
	"testing"
	"testing/synctest"
	"time"

	"walhook/outbox"
	"walhook/sender/deliver"
)

func TestSender_GoneDisablesAndEnablingDeliversWhatWasHeld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		gone := true
		r := startSender(t, Config{}, log, func(outbox.Endpoint, outbox.Event) (deliver.Result, time.Duration) {
			if gone {
				return disables, time.Millisecond
			}
			return ok, time.Millisecond
		})
		log.append(events(1, 1, 200, 200)...)
		after(time.Hour)
		if n := len(r.of(1)); n != 1 {
			t.Errorf("%d attempts at an endpoint that is gone", n)
		}
		e := log.view().endpoints[1]
		if e.State != outbox.EndpointDisabled {
			t.Fatalf("endpoint %+v", e)
		}
		r.mu.Lock()
		gone = false
		r.mu.Unlock()
		e.State, e.Revision = outbox.EndpointActive, e.Revision+1
		log.set(e)
		after(10 * time.Second)
		r.end()
		wantOnce(t, log, 200)
	})
}

func TestSender_ANewURLStartsAfreshAndALate410OfTheOldOneDoesNotTouchIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, func(e outbox.Endpoint, event outbox.Event) (deliver.Result, time.Duration) {
			switch {
			case e.Revision == 2:
				return ok, 0
			case event.ID == 4:
				return disables, 10 * time.Second
			}
			return refused, 0
		})
		log.append(events(1, 1, 3, 3)...)
		after(time.Second)
		log.append(events(1, 4, 100, 100)...)
		after(time.Second)
		e := active(1)
		e.Revision, e.URL = 2, "http://new"
		log.set(e)
		after(time.Second)
		if n := len(log.delivered()); n != 103 {
			t.Errorf("%d of 103 delivered a second after the change", n)
		}
		after(time.Minute)
		r.end()
		wantOnce(t, log, 103)
		if log.view().endpoints[1].State != outbox.EndpointActive {
			t.Errorf("endpoint %+v", log.view().endpoints[1])
		}
	})
}

func TestSender_ANewerRevisionInTheLogIsReadBeforeItsEventIsSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, always(ok, 0))
		log.append(events(1, 1, 1, 1)...)
		after(time.Second)
		e := active(1)
		e.Revision, e.URL = 2, "http://new"
		log.fault(func() { log.unseen = true }) // nobody tells of it but the event
		log.set(e)
		next := events(1, 2, 1, 1)
		next[0].Revision = 2
		log.append(next...)
		after(time.Second)
		r.end()
		if got := r.of(1); len(got) != 2 || got[0].endpoint.URL != "http://1" || got[1].endpoint.URL != "http://new" {
			t.Errorf("arrivals %+v", got)
		}
	})
}

func TestSender_AClearedURLEndsTheFeedAndANewOneStartsIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{}, log, func(e outbox.Endpoint, _ outbox.Event) (deliver.Result, time.Duration) {
			if e.Revision == 1 {
				return failing, 0
			}
			return ok, 0
		})
		log.append(events(1, 1, 50, 50)...)
		after(time.Second)
		e := active(1)
		e.Revision, e.URL, e.State, e.FeedFrom = 2, "", outbox.EndpointCleared, 51
		log.set(e)
		after(2 * time.Second)
		if len(log.view().dead) != 50 || len(log.view().retry) != 0 {
			t.Errorf("%d expired, %d in retry; want 50, 0", len(log.view().dead), len(log.view().retry))
		}
		r.end()
		r.start()
		e.Revision, e.URL, e.State, e.FeedFrom = 3, "http://new", outbox.EndpointActive, 51
		log.set(e)
		next := events(1, 51, 10, 10)
		for i := range next {
			next[i].Revision = 3
		}
		log.append(next...)
		after(5 * time.Second)
		r.end()
		wantOnce(t, log, 10)
	})
}

func TestSender_AnEndpointThatHasOnlyFailedForLongIsDisabled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(active(1))
		r := startSender(t, Config{DisableAfter: time.Hour}, log, always(refused, 0))
		log.append(events(1, 1, 50, 50)...)
		after(55 * time.Minute)
		if log.view().endpoints[1].State != outbox.EndpointActive {
			t.Fatal("disabled too early")
		}
		after(20 * time.Minute)
		if e := log.view().endpoints[1]; e.State != outbox.EndpointDisabled || e.Reason == "" {
			t.Errorf("endpoint %+v", e)
		}
		if len(log.view().dead) > 0 {
			t.Errorf("%d dead letters: held means not lost", len(log.view().dead))
		}
		r.end()
	})
}
