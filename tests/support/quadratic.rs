//! ½wᵀHw − bᵀw on plain vectors: loss, gradient and curvature in closed form.

pub use crate::random::Random;

/// A quadratic; H is symmetric.
#[derive(Clone, Debug)]
pub struct Quadratic {
    /// H, by rows.
    pub hessian: Vec<Vec<f64>>,
    /// b.
    pub linear: Vec<f64>,
}

impl Quadratic {
    /// H = QᵀDQ with `spectrum` as D and a random rotation as Q, b random.
    pub fn random(spectrum: &[f64], random: &mut Random) -> Self {
        let n = spectrum.len();
        let mut hessian: Vec<Vec<f64>> = (0..n)
            .map(|row| {
                (0..n).map(|column| if row == column { spectrum[row] } else { 0.0 }).collect()
            })
            .collect();
        // Three Householder reflections P = I − 2vvᵀ mix every direction with every other.
        for _ in 0..3 {
            let v = random.vector(n);
            let norm = dot(&v, &v);
            let hv: Vec<f64> = hessian.iter().map(|row| dot(row, &v)).collect();
            let vhv = dot(&v, &hv);
            for row in 0..n {
                for column in 0..n {
                    hessian[row][column] += (4.0 * vhv / norm * v[row] * v[column]
                        - 2.0 * (v[row] * hv[column] + hv[row] * v[column]))
                        / norm;
                }
            }
        }
        Self { hessian, linear: random.vector(n) }
    }

    /// Hv.
    pub fn times(&self, v: &[f64]) -> Vec<f64> {
        self.hessian.iter().map(|row| dot(row, v)).collect()
    }

    /// ½wᵀHw − bᵀw.
    pub fn loss(&self, w: &[f64]) -> f64 {
        0.5 * dot(w, &self.times(w)) - dot(&self.linear, w)
    }

    /// Hw − b.
    pub fn gradient(&self, w: &[f64]) -> Vec<f64> {
        self.times(w).iter().zip(&self.linear).map(|(hw, b)| hw - b).collect()
    }

    /// vᵀHv.
    pub fn curvature(&self, v: &[f64]) -> f64 {
        dot(v, &self.times(v))
    }

    /// Σ|Hᵢⱼ||wⱼ| + |bᵢ|, the largest: what the rounding of a gradient at w is relative to.
    pub fn gradient_scale(&self, w: &[f64]) -> f64 {
        let row_scale = |row: &Vec<f64>| row.iter().zip(w).map(|(h, w)| (h * w).abs()).sum::<f64>();
        self.hessian
            .iter()
            .zip(&self.linear)
            .map(|(row, b)| row_scale(row) + b.abs())
            .fold(0.0, f64::max)
    }
}

/// ⟨a,b⟩.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// |a|.
pub fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

impl Random {
    /// Uniform in [−1, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }

    /// `n` of them.
    pub fn vector(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.uniform()).collect()
    }
}
