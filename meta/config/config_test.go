package config

import (
	"errors"
	"testing"
	"time"
)

func TestDefaultsAreValid(t *testing.T) {
	for _, p := range parameters {
		if err := Check(p.name, p.value); err != nil {
			t.Errorf("%s: %v", p.name, err)
		}
	}
	s := Parse(nil)
	if s.OfflineAfter != 5*time.Minute || s.MaxOffline != 2 || s.FillMargin != 5 || !s.StrictFailureDomain {
		t.Errorf("%+v", s)
	}
}

func TestValuesAreChecked(t *testing.T) {
	for name, values := range map[string][]string{
		"mds.wd.offline_tout":   {"x", "5parsecs", "-1s", "400d", "99999999999999999999s"},
		"mds.alloc.fill_margin": {"51", "-1", "5%"},
	} {
		for _, v := range values {
			if err := Check(name, v); !errors.Is(err, ErrValue) {
				t.Errorf("%s=%s: %v, want ErrValue", name, v, err)
			}
		}
	}
	if err := Check("mds.none", "1"); !errors.Is(err, ErrUnknown) {
		t.Errorf("%v, want ErrUnknown", err)
	}
}

func TestTimesTakeUnits(t *testing.T) {
	for text, want := range map[string]time.Duration{"30": 30 * time.Second, "30s": 30 * time.Second, "200ms": 200 * time.Millisecond, "2 min": 2 * time.Minute, "1h": time.Hour, "1d": 24 * time.Hour} {
		if s := Parse(map[string]string{"mds.wd.offline_tout": text}); s.OfflineAfter != want {
			t.Errorf("%s is %v, want %v", text, s.OfflineAfter, want)
		}
	}
}

func TestUnknownValuesCountAsDefaults(t *testing.T) {
	if s := Parse(map[string]string{"mds.wd.offline_tout": "soon"}); s.OfflineAfter != 5*time.Minute {
		t.Errorf("%v", s.OfflineAfter)
	}
	if all := All(map[string]string{"mds.wd.offline_tout": "1h"}); all["mds.wd.offline_tout"] != "1h" || all["mds.alloc.fill_margin"] != "5" {
		t.Errorf("%v", all)
	}
}
