// Names what is built, so that `go mod tidy` keeps its requirements.

//go:build tools

package tools

import _ "helm.sh/helm/v3/cmd/helm"
