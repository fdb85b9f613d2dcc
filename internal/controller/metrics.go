package controller

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// perStorage is a number for each CartStorage.
type perStorage struct{ *prometheus.GaugeVec }

// outdatedPods is for an alert on sidecars that must be restarted by hand.
var outdatedPods = perStorage{prometheus.NewGaugeVec(prometheus.GaugeOpts{
	Name: "sidecart_operator_outdated_pods",
	Help: "Pods whose sidecar differs from what a new pod would be given, by CartStorage.",
}, []string{"namespace", "cartstorage"})}

func init() { metrics.Registry.MustRegister(outdatedPods) }

func (g perStorage) set(key types.NamespacedName, n int32) {
	g.WithLabelValues(key.Namespace, key.Name).Set(float64(n))
}

func (g perStorage) forget(key types.NamespacedName) {
	g.DeleteLabelValues(key.Namespace, key.Name)
}
