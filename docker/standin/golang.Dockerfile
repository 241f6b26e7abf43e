# The Go toolchain without a container registry: Debian's Go fetches the wanted release as the module golang.org/toolchain,
# checked against the sum database, from wherever Go modules come from here. ca.crt is the builder host's CA bundle, because
# a module proxy inside a company is often signed by a CA that only the hosts know; the services' own image takes its CA
# file from here, too.
ARG DEBIAN_IMAGE=spamtraps-standin/debian:trixie
FROM ${DEBIAN_IMAGE} AS fetch
ARG GO_VERSION
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends golang-go
COPY ca.crt /etc/ssl/certs/ca-certificates.crt
ARG GOPROXY
RUN set -e; \
    module=golang.org/toolchain@v0.0.1-go${GO_VERSION}.linux-$(dpkg --print-architecture); \
    GOTOOLCHAIN=local ${GOPROXY:+GOPROXY=$GOPROXY} go mod download "$module"; \
    mv "$(go env GOMODCACHE)/$module" /usr/local/go; \
    chmod -R u+w /usr/local/go; \
    find /usr/local/go/bin /usr/local/go/pkg/tool -type f -exec chmod +x {} +; \
    rm -rf /usr/local/go/test /usr/local/go/doc /usr/local/go/api

FROM ${DEBIAN_IMAGE}
COPY ca.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=fetch /usr/local/go /usr/local/go
ENV PATH=/usr/local/go/bin:$PATH GOTOOLCHAIN=local
WORKDIR /go
