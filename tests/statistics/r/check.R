# R's numbers for grid.csv and pairs.csv, written to expected.json (README.md).
# Needs lme4; everything else, JSON too, is base R.

suppressPackageStartupMessages(library(lme4))

json <- function(x) {
  if (is.list(x) && is.null(names(x))) {
    return(paste0("[", paste(vapply(x, json, ""), collapse = ", "), "]"))
  }
  if (is.list(x) || !is.null(names(x))) {
    values <- vapply(as.list(x), json, "")
    return(paste0("{", paste0('"', names(x), '": ', values, collapse = ",\n"), "}"))
  }
  text <- if (is.character(x)) paste0('"', x, '"') else formatC(x, digits = 12, width = 1)
  if (length(text) == 1) text else paste0("[", paste(text, collapse = ", "), "]")
}

# -- the grid ----------------------------------------------------------------------------------

attributes <- c("gender", "age", "religion", "ethnicity")
grid <- read.csv("grid.csv")
for (name in c("item", attributes)) grid[[name]] <- factor(grid[[name]])
cells <- expand.grid(lapply(grid[attributes], levels), stringsAsFactors = TRUE)
tight <- lmerControl(optCtrl = list(xtol_abs = 1e-12, ftol_abs = 1e-12))

at <- function(formula, attribute, level) {
  set <- cells
  set[[attribute]] <- factor(level, levels = levels(cells[[attribute]]))
  model.matrix(formula, set)
}

wald <- function(weights, beta, v) {
  values <- weights %*% beta
  chi2 <- drop(t(values) %*% solve(weights %*% v %*% t(weights), values))
  c(chi2 = chi2, df = nrow(weights), p = pchisq(chi2, nrow(weights), lower.tail = FALSE))
}

# Hotelling's T2 of the combinations of each item's own coefficients (items in rows).
hotelling <- function(weights, by_item) {
  d <- by_item %*% t(weights)
  n <- nrow(d)
  q <- ncol(d)
  t2 <- n * drop(colMeans(d) %*% solve(cov(d), colMeans(d)))
  f <- (n - q) / (q * (n - 1)) * t2
  c(f = f, df1 = q, df2 = n - q, p = pf(f, q, n - q, lower.tail = FALSE))
}

mixed <- function(data, interactions) {
  right <- if (interactions) "(gender + age + religion + ethnicity)^2"
           else "gender + age + religion + ethnicity"
  formula <- as.formula(paste("~", right))
  fit <- lmer(as.formula(paste("correct ~", right, "+ (1 | item)")), data,
              REML = TRUE, control = tight)
  beta <- fixef(fit)
  v <- as.matrix(vcov(fit))
  by_item <- t(sapply(split(data, data$item), function(rows) {
    qr.coef(qr(model.matrix(formula, rows)), rows$correct)
  }))
  contrasts <- means <- joint <- crossed <- robust <- list()
  for (a in attributes) {
    weights <- NULL
    for (b in levels(cells[[a]])) {
      mean <- colMeans(at(formula, a, b))
      se <- sqrt(drop(mean %*% v %*% mean))
      means[[paste(a, b)]] <- c(estimate = sum(mean * beta), se = se)
      if (b == "0") next
      w <- mean - colMeans(at(formula, a, "0"))
      estimate <- sum(w * beta)
      se <- sqrt(drop(w %*% v %*% w))
      contrasts[[paste(a, b)]] <- c(estimate = estimate, se = se,
                                    low = estimate - qnorm(0.975) * se,
                                    high = estimate + qnorm(0.975) * se,
                                    p = 2 * pnorm(-abs(estimate / se)))
      weights <- rbind(weights, w)
    }
    joint[[a]] <- wald(weights, beta, v)
    robust[[a]] <- hotelling(weights, by_item)
  }
  labels <- attr(terms(formula), "term.labels")
  for (k in which(grepl(":", labels))) {
    columns <- attr(model.matrix(formula, cells), "assign") == k
    weights <- diag(length(beta))[columns, ]
    crossed[[sub(":", " x ", labels[k])]] <- wald(weights, beta, v)
    robust[[sub(":", " x ", labels[k])]] <- hotelling(weights, by_item)
  }
  found <- list(beta = as.list(beta), se = setNames(as.list(sqrt(diag(v))), names(beta)),
                item_sd = sqrt(VarCorr(fit)$item[1]), residual_sd = sigma(fit),
                log_likelihood = as.numeric(logLik(fit, REML = TRUE)),
                contrasts = contrasts, means = means, attributes = joint, robust = robust)
  if (interactions) found$interactions <- crossed
  found
}

# Logistic GEE by hand (Liang & Zeger 1986), exchangeable, with the errors of Mancl & DeRouen
# (2001). Effects are differences of mean predictions over the cells, their errors by the delta
# method with numerical derivatives.
gee <- function(data, interactions) {
  formula <- if (interactions) ~ (gender + age + religion + ethnicity)^2
             else ~ gender + age + religion + ethnicity
  x <- model.matrix(formula, data)
  y <- data$correct
  members <- split(seq_along(y), data$item)
  beta <- glm.fit(x, y, family = binomial())$coefficients
  rho <- 0
  inverse <- function(mu) {
    a <- sqrt(mu * (1 - mu))
    solve(outer(a, a) * (rho + diag(1 - rho, length(mu))))
  }
  for (step in 1:200) {
    mu <- plogis(drop(x %*% beta))
    bread <- 0
    score <- 0
    for (i in members) {
      d <- mu[i] * (1 - mu[i]) * x[i, ]
      w <- inverse(mu[i])
      bread <- bread + t(d) %*% w %*% d
      score <- score + t(d) %*% w %*% (y[i] - mu[i])
    }
    change <- drop(solve(bread, score))
    beta <- beta + change
    mu <- plogis(drop(x %*% beta))
    r <- (y - mu) / sqrt(mu * (1 - mu))
    scale <- sum(r^2) / (length(y) - ncol(x))
    products <- sum(vapply(members, function(i) (sum(r[i])^2 - sum(r[i]^2)) / 2, 0))
    n_products <- sum(choose(lengths(members), 2))
    rho <- products / (n_products - ncol(x)) / scale
    if (step > 1 && max(abs(change)) < 1e-12) break  # the first step has glm at its end
  }
  bread <- 0
  for (i in members) {
    d <- mu[i] * (1 - mu[i]) * x[i, ]
    bread <- bread + t(d) %*% inverse(mu[i]) %*% d
  }
  meat <- 0
  for (i in members) {
    d <- mu[i] * (1 - mu[i]) * x[i, ]
    w <- inverse(mu[i])
    h <- d %*% solve(bread, t(d) %*% w)
    part <- t(d) %*% w %*% solve(diag(length(i)) - h, y[i] - mu[i])
    meat <- meat + part %*% t(part)
  }
  v <- solve(bread) %*% meat %*% solve(bread)
  df <- length(members) - 1
  effects <- list()
  for (a in attributes) for (b in levels(cells[[a]])[-1]) {
    plus <- at(formula, a, b)
    minus <- at(formula, a, "0")
    effect <- function(beta) mean(plogis(plus %*% beta)) - mean(plogis(minus %*% beta))
    gradient <- vapply(seq_along(beta), function(k) {
      h <- replace(numeric(length(beta)), k, 1e-5)
      (effect(beta + h) - effect(beta - h)) / 2e-5
    }, 0)
    se <- sqrt(drop(gradient %*% v %*% gradient))
    half <- qt(0.975, df) * se
    effects[[paste(a, b)]] <- c(estimate = effect(beta), se = se, low = effect(beta) - half,
                                high = effect(beta) + half,
                                p = 2 * pt(-abs(effect(beta) / se), df))
  }
  list(beta = as.list(beta), se = setNames(as.list(sqrt(diag(v))), names(beta)), rho = rho,
       scale = scale,
       effects = effects)
}

holes <- grid[seq_len(nrow(grid)) %% 7 != 0, ]  # unbalanced: every seventh row is missing

# -- max-T over flips of whole items -----------------------------------------------------------

# All 2^I flips, one at a time. A contrast's error is from the larger of its own variance and the
# mean variance of its kind.
max_t <- function(d, kind) {
  n <- nrow(d)
  variances <- function(d) {
    own <- apply(d, 2, var)
    pmax(own, ave(own, kind))
  }
  t_of <- function(d) colMeans(d) / sqrt(variances(d) / n)
  signs <- as.matrix(expand.grid(rep(list(c(1, -1)), n)))  # the first row flips none, the last all
  largest <- apply(signs, 1, function(s) max(abs(t_of(d * s))))
  near <- 1 - 1e-9
  p <- vapply(abs(t_of(d)), function(t) mean(largest >= t * near), 0)
  others <- largest[2:(length(largest) - 1)]
  p_at <- vapply(others, function(t) (2 + sum(others >= t * near)) / length(largest), 0)
  critical <- max(others[p_at >= 0.05])
  estimate <- colMeans(d)
  se <- sqrt(variances(d) / n)
  rows <- lapply(seq_len(ncol(d)), function(k) {
    c(estimate = unname(estimate[k]), se = unname(se[k]), t = unname(t_of(d)[k]),
      p = unname(p[k]), low = unname(estimate[k] - critical * se[k]),
      high = unname(estimate[k] + critical * se[k]))
  })
  names(rows) <- colnames(d)
  list(critical = critical, contrasts = rows)
}

by_cell <- function(items) {
  rows <- grid[grid$item %in% items, ]
  cell <- do.call(paste, c(unname(rows[attributes]), sep = ", "))
  tapply(rows$correct, list(factor(rows$item, items), cell), mean)
}

# Each cell less the mean of all, and two-way interactions as differences of means.
grid_contrasts <- function(m) {
  of <- do.call(rbind, strsplit(colnames(m), ", "))
  colnames(of) <- attributes
  d <- m - rowMeans(m)
  colnames(d) <- paste("cell:", colnames(m))
  kind <- rep("cell", ncol(d))
  average <- function(columns) rowMeans(m[, columns, drop = FALSE])
  for (pair in combn(attributes, 2, simplify = FALSE)) for (i in 0:2) for (j in 0:2) {
    left <- of[, pair[1]] == i
    right <- of[, pair[2]] == j
    rest <- average(left & right) - average(left) - average(right) + rowMeans(m)
    name <- paste(pair, collapse = " x ")
    d <- cbind(d, rest)
    colnames(d)[ncol(d)] <- paste0(name, ": ", i, ", ", j)
    kind <- c(kind, name)
  }
  list(d = d, kind = kind)
}

level_contrasts <- function(m) {
  of <- do.call(rbind, strsplit(colnames(m), ", "))
  colnames(of) <- attributes
  d <- NULL
  for (a in attributes) for (b in 1:2) {
    d <- cbind(d, rowMeans(m[, of[, a] == b]) - rowMeans(m[, of[, a] == 0]))
    colnames(d)[ncol(d)] <- paste(a, b)
  }
  d
}

# -- pairs -------------------------------------------------------------------------------------

pairs <- read.csv("pairs.csv")
conditions <- c("none", "neutral", "advantaged", "disadvantaged")
answers <- lapply(conditions, function(c) {
  part <- pairs[pairs$condition == c, ]
  m <- matrix(NA, length(unique(part$item)), length(unique(part$pair)))
  m[cbind(part$item + 1, part$pair + 1)] <- part$correct
  if (ncol(m) == 1) m[, rep(1, max(pairs$pair) + 1)] else m
})
names(answers) <- conditions

mcnemar_of <- function(plus, minus) {
  better <- sum(answers[[plus]] > answers[[minus]])
  worse <- sum(answers[[plus]] < answers[[minus]])
  table <- table(factor(answers[[plus]], 0:1), factor(answers[[minus]], 0:1))
  c(better = better, worse = worse, p = binom.test(better, better + worse)$p.value,
    chi2 = unname(mcnemar.test(table, correct = FALSE)$statistic))
}
wanted <- list(c("advantaged", "disadvantaged"), c("neutral", "none"), c("advantaged", "none"),
               c("disadvantaged", "none"), c("advantaged", "neutral"))
tests <- lapply(wanted, function(w) mcnemar_of(w[1], w[2]))
names(tests) <- vapply(wanted, paste, "", collapse = " - ")

cochran <- function(blocks) {
  k <- ncol(blocks)
  q <- (k - 1) * (k * sum(colSums(blocks)^2) - sum(blocks)^2) /
    (k * sum(blocks) - sum(rowSums(blocks)^2))
  c(q = q, df = k - 1, p = pchisq(q, k - 1, lower.tail = FALSE))
}

# Mean squares of two-way analysis of variance: variance of the mean, Satterthwaite's df.
anova_mean <- function(m) {
  data <- data.frame(d = c(m), item = factor(row(m)), pair = factor(col(m)))
  squares <- summary(aov(d ~ item + pair, data))[[1]]
  parts <- squares[["Mean Sq"]] / length(m)
  v <- parts[1] + parts[2] - parts[3]
  list(data = data, mean = mean(m), variance = v,
       df = v^2 / sum(parts^2 / squares[["Df"]]), squares = squares[["Mean Sq"]])
}

# Johnson's (1978, JASA 73:536) t of items' means for skewed values, with the cubic term of Hall
# (1992, JRSS B 54:221) that makes it monotone, so that its interval can be found by search.
johnson_t <- function(r, m) {
  n <- length(r)
  s2 <- var(r)
  d <- mean(r) - m
  mu3 <- n / ((n - 1) * (n - 2)) * sum((r - mean(r))^3)
  johnson <- (d + mu3 / (6 * s2 * n) + mu3 * d^2 / (3 * s2^2)) / sqrt(s2 / n)
  johnson + (mu3 / s2^1.5)^2 / n * (d / sqrt(s2 / n))^3 / 27
}

johnson <- function(r, margin, level = 0.95) {
  df <- length(r) - 1
  bound <- function(p) uniroot(function(m) pt(johnson_t(r, m), df) - p, c(-9, 9), tol = 1e-13)$root
  list(low = bound((1 + level) / 2), high = bound((1 - level) / 2),
       p = 2 * pt(-abs(johnson_t(r, 0)), df),
       above = pt(johnson_t(r, -margin), df, lower.tail = FALSE),
       below = pt(johnson_t(r, margin), df))
}

# Interval: the hull of a t interval and Johnson's; p: the larger. Equivalence: the largest of two
# one-sided t tests, of Johnson's, and of the chance to see none of `margin` reacting items.
both <- function(r, mean, se, df, margin) {
  skewed <- johnson(r, margin)
  ninety <- johnson(r, margin, 0.9)
  tost <- max(pt((mean + margin) / se, df, lower.tail = FALSE), pt((mean - margin) / se, df))
  list(estimate = mean, se = se, df = df, margin = margin,
       low = min(mean - qt(0.975, df) * se, skewed$low),
       high = max(mean + qt(0.975, df) * se, skewed$high),
       low90 = min(mean - qt(0.95, df) * se, ninety$low),
       high90 = max(mean + qt(0.95, df) * se, ninety$high),
       p = max(2 * pt(-abs(mean / se), df), skewed$p), johnson = skewed, p_tost = tost,
       p_equivalence = max(tost, skewed$above, skewed$below, (1 - margin)^length(r)))
}

crossed <- function(plus, minus, margin) {
  d <- answers[[plus]] - answers[[minus]]
  found <- anova_mean(d)
  fit <- lmer(d ~ 1 + (1 | item) + (1 | pair), found$data, REML = TRUE, control = tight)
  se <- sqrt(vcov(fit)[1, 1])  # equals sqrt(found$variance): balanced, no component is zero
  c(both(rowMeans(d), unname(fixef(fit)), se, found$df, margin),
    list(se_anova = sqrt(found$variance), items = VarCorr(fit)$item[1],
         users = VarCorr(fit)$pair[1], cells = sigma(fit)^2))
}

# With one user the crossed t is a paired t test of the items.
one_user <- function(r, margin) {
  test <- t.test(r)
  c(list(values = r), both(r, mean(r), test$stderr, unname(test$parameter), margin))
}

korn_graubard <- function(condition) {
  m <- answers[[condition]]
  if (condition == "none") {
    p <- mean(m[, 1])
    v <- var(m[, 1]) / nrow(m)
    df <- nrow(m) - 1
    n <- nrow(m)
  } else {
    found <- anova_mean(m)
    p <- found$mean
    v <- found$variance
    df <- found$df
    n <- length(m)
  }
  size <- min(p * (1 - p) / v * (qt(0.975, n - 1) / qt(0.975, df))^2, n)
  c(estimate = p, low = qbeta(0.025, p * size, (1 - p) * size + 1),
    high = qbeta(0.975, p * size + 1, (1 - p) * size))
}

# -- power -------------------------------------------------------------------------------------

# One-sample t test, and two one-sided tests by integration over the sample variance.
power_of <- function(n, sd, delta, margin) {
  df <- n - 1
  both <- function(u) {
    width <- pmax(margin - qt(0.95, df) * sd * sqrt(u / df / n), 0)
    (pnorm((width - delta) * sqrt(n) / sd) - pnorm((-width - delta) * sqrt(n) / sd)) *
      dchisq(u, df)
  }
  size <- uniroot(function(k) {
    power.t.test(k, 0.05, sd, type = "one.sample", strict = TRUE)$power - 0.8
  }, c(2, 1e5), tol = 1e-6)$root
  c(n = n, sd = sd, delta = delta, margin = margin,
    power = power.t.test(n, delta, sd, type = "one.sample", strict = TRUE)$power,
    equivalence = integrate(both, 0, Inf, rel.tol = 1e-8)$value,
    detectable = power.t.test(n, NULL, sd, power = 0.8, type = "one.sample")$delta,
    size_for_0.05 = size)
}

p_values <- unname(c(vapply(tests, function(t) t[["p"]], 0), 0.04, 0.04, 0.2, 1, 0.011, 0.0004))

expected <- list(
  versions = list(R = R.version$version.string, lme4 = as.character(packageVersion("lme4"))),
  mixed = mixed(grid, FALSE),
  mixed_interactions = mixed(grid, TRUE),
  mixed_holes = mixed(holes, FALSE),
  mixed_holes_interactions = mixed(holes, TRUE),
  gee = gee(grid, FALSE),
  gee_holes_interactions = gee(holes, TRUE),
  mcnemar = tests,
  cochran = list(all = cochran(vapply(answers, c, numeric(length(answers$none)))),
                 users = cochran(vapply(answers[-1], c, numeric(length(answers$none))))),
  adjust = list(p = p_values, holm = p.adjust(p_values, "holm"), bh = p.adjust(p_values, "BH")),
  crossed = list("advantaged - disadvantaged" = crossed("advantaged", "disadvantaged", 0.2),
                 "advantaged - neutral" = crossed("advantaged", "neutral", 0.15)),
  one_user = list(
    pairs = one_user((answers$advantaged - answers$disadvantaged)[, 1], 0.4),
    "few items react" = one_user(c(rep(1, 4), rep(0.2, 3), -0.4, rep(0, 52)), 0.1),
    "more items" = one_user(c(rep(1, 4), rep(0.2, 3), -0.4, rep(0, 170)), 0.05)),
  max_t = list(grid = do.call(max_t, unname(grid_contrasts(by_cell(1:9)))),
               levels = max_t(level_contrasts(by_cell(4:13)), 1:8)),
  proportion = sapply(conditions, korn_graubard, simplify = FALSE),
  power = list(power_of(40, 0.3, 0.1, 0.1), power_of(120, 0.25, 0.05, 0.08),
               power_of(8, 0.2, 0.25, 0.2))
)
writeLines(json(expected), "expected.json")
