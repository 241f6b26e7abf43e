# RabbitMQ 4 from Debian's packages, laid out as the upstream image is where our own image relies on it: the server's
# commands on PATH, /etc/rabbitmq/conf.d, /var/lib/rabbitmq, user rabbitmq.
ARG DEBIAN_IMAGE=spamtraps-standin/debian:trixie
FROM ${DEBIAN_IMAGE}
RUN apt-get update -qq \
 && printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rabbitmq-server openssl \
 && rm -rf /var/lib/apt/lists/* /var/lib/rabbitmq/* /var/lib/rabbitmq/.erlang.cookie /var/log/rabbitmq/* /usr/sbin/policy-rc.d
ENV PATH=/usr/lib/rabbitmq/bin:$PATH
EXPOSE 5672 5671 15672
CMD ["rabbitmq-server"]
