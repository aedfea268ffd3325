"""R-GAP as its paper describes it: dense stacked systems, solved by least squares. The slow twin."""

import numpy as np
import torch
from torch import nn


def conv_matrix(conv, shape):
    """The dense matrix of a convolution without its bias, column by column."""
    n = int(np.prod(shape))
    eye = torch.eye(n, dtype=torch.float64).reshape(n, *shape)
    out = nn.functional.conv2d(eye, conv.weight.detach().double(), None, conv.stride, conv.padding)
    return out.reshape(n, -1).T.numpy(), out.shape[1:]


def gradient_matrix(conv, shape, k):
    """How dL/dW depends on the input, given dL/dz = k: also dense, also column by column."""
    n = int(np.prod(shape))
    columns = []
    for i in range(n):
        x = torch.zeros(n, dtype=torch.float64)
        x[i] = 1
        w = conv.weight.detach().double().requires_grad_()
        z = nn.functional.conv2d(x.reshape(1, *shape), w, None, conv.stride, conv.padding)
        (g,) = torch.autograd.grad((z[0] * k).sum(), w)
        columns.append(g.reshape(-1).numpy())
    return np.stack(columns, 1)


def recurse(model, gradients, shapes, features, delta):
    """From the head down: invert the activation, stack W x = z on K x = dW, solve by np.linalg.lstsq."""
    layers = list(model.children())
    value, k = features, layers[-1].weight.detach().double().T @ delta
    for i in range(len(layers) - 2, -1, -1):
        layer, shape = layers[i], shapes[i]
        if isinstance(layer, nn.Flatten):
            value, k = value.reshape(shape), k.reshape(shape)
        elif isinstance(layer, nn.LeakyReLU):
            slope = torch.where(value > 0, 1.0, layer.negative_slope)
            value, k = value / slope, k * slope
        else:
            w, _ = conv_matrix(layer, shape)
            stacked = np.concatenate([w, gradient_matrix(layer, shape, k)])
            right = np.concatenate([value.reshape(-1).numpy(), gradients[i].double().reshape(-1).numpy()])
            x = np.linalg.lstsq(stacked, right, rcond=None)[0]
            k = torch.from_numpy(w.T @ k.reshape(-1).numpy()).reshape(shape)
            value = torch.from_numpy(x).reshape(shape)
    return value
