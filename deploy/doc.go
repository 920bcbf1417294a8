// Package deploy holds the files that install walhook: the unit of systemd, a file of
// Docker Compose and the manifests of Kubernetes. The binary embeds them, so that `walhook
// init` writes the ones of its own version.
//
// # Kubernetes
//
// The manifests in kubernetes are plain files, the same for everybody:
//
//	publisher    one that reads, and a standby
//	sender       as many as wanted
//	api          the subscription API and its Service
//	disruption   a drain takes one of each kind at a time
//	network      who may connect to whom
//	metrics      a headless Service over every process
//	monitoring   what the Prometheus operator needs, as a component
//
// What differs between installations is in kubernetes/kustomization.yaml and
// kubernetes/walhook.yaml, which [Kubernetes.Files] writes: `kubectl apply -k` is all that
// they need. That is why there is no chart. A chart would be templates of text around the
// same files, and a second program to install.
//
// # What it does not do
//
// It makes no secret and reads none: the Secret exists already, and the settings must not
// hold one.
package deploy
