package controller

import (
	"strings"
	"testing"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// The configuration that sidecars run on stays in the ConfigMap beside the one that they refuse, until they run on a
// newer one, also if the operator restarts meanwhile.
func TestLastGoodConfiguration(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop")
	w.deployment("web", "shop", 2)
	w.allUpdated("shop", 2)
	files := func() (config, lastGood string) {
		cm := w.configMap("shop")
		return cm.Data["config.yaml"], cm.Data["lastgood.yaml"]
	}
	same := func() string {
		if config, lastGood := files(); config != lastGood {
			return "what all run on is not the last good configuration: " + lastGood
		}
		return ""
	}
	w.eventually(same)
	good, _ := files()

	refuse := func(r *Report) {
		r.Generation--
		r.Config.State, r.Config.Message = "ConfigRejected", "keyPrefix: must not start with \"lock\""
	}
	// One of two is enough: a configuration that one sidecar refuses is not known to be good.
	w.nodes.says(w.namespace, "web-1-2", refuse)
	update(w, "shop", &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) { cs.Spec.Limits.MaxItems = 3 })
	w.settles("shop", func(cs *v1alpha1.CartStorage) string { return is(cs, "ConfigAccepted", "False", "ConfigRejected") })
	kept := func() {
		t.Helper()
		config, lastGood := files()
		if lastGood != good || !strings.Contains(config, "maxItems: 3") {
			t.Fatalf("the last good configuration is\n%s\nand the newest\n%s", lastGood, config)
		}
	}
	kept()
	w.stop()
	w.start()
	update(w, "shop", &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) { cs.Spec.Limits.MaxQuantity = 7 })
	w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		if _, lastGood := files(); lastGood != good {
			t.Fatalf("the last good configuration is\n%s", lastGood)
		}
		if cs.Status.ObservedGeneration != cs.Generation {
			return "the change is not seen"
		}
		return is(cs, "ConfigAccepted", "False", "ConfigRejected")
	})
	kept()

	w.nodes.says(w.namespace, "web-1-2", nil)
	w.allUpdated("shop", 2)
	w.eventually(same)
	if _, lastGood := files(); !strings.Contains(lastGood, "maxQuantity: 7") {
		t.Errorf("the last good configuration is\n%s", lastGood)
	}
	quiet := w.configMap("shop").ResourceVersion
	w.allUpdated("shop", 2)
	if now := w.configMap("shop").ResourceVersion; now != quiet {
		t.Error("the ConfigMap is written although nothing changes")
	}
}
