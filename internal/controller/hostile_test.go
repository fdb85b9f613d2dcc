package controller

import (
	"encoding/json"
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecart/sidecart/internal/render"
)

func marshalled(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// hostile puts long texts into every field of an object where an editor can put them.
func hostile(pod *corev1.Pod, long string) {
	sidecar := corev1.Container{Name: render.ContainerName, Image: long, Command: []string{long}}
	for i := range 1000 {
		sidecar.Ports = append(sidecar.Ports, corev1.ContainerPort{Name: "p", ContainerPort: int32(i + 1)})
	}
	pod.Spec.InitContainers = []corev1.Container{sidecar}
	source := corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: long}}}
	for i := range 1000 {
		source.Secret.Items = append(source.Secret.Items, corev1.KeyToPath{Key: long, Path: fmt.Sprintf("secrets/%d/%s", i, long[:100])})
	}
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "sidecart-config", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{source}}}},
		{Name: "sidecart-data", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: long}}},
		{Name: "sidecart-other", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: long}}},
	}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: long}}
	pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{
		Name: render.ContainerName, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "a", Message: long}},
	}}
}

func hostileConfigMap(long string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"a": long}, Labels: map[string]string{managedBy: "sidecart"}},
		Data:       map[string]string{"config.yaml": long, "other": long},
		BinaryData: map[string][]byte{"binary": []byte(long)},
	}
}

func hostileAutoscaler(long string) *autoscalingv2.HorizontalPodAutoscaler {
	hpa := &autoscalingv2.HorizontalPodAutoscaler{}
	hpa.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: long, Kind: long, Name: long}
	return hpa
}

func hostileDeployment(long string, owner []metav1.OwnerReference) *appsv1.Deployment {
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"a": long}, OwnerReferences: owner}}
	d.Spec.Template = podTemplate("shop")
	d.Spec.Template.Spec.Containers[0].Image = long
	return d
}
